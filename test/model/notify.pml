/* SPDX-License-Identifier: BSD-3-Clause
 *
 * One side of a ring publishes and decides whether to wake the other; the other looks, asks to be
 * woken, looks again, and sleeps. Every interleaving, each side with a FIFO store buffer in front of
 * memory, as in grace.pml. A wake-up that is lost leaves the sleeper asleep: an invalid end state.
 *
 * Kicks: the driver publishes, PackedQueue and SplitQueue::arm() is the sleeper (V4, P4). Signals:
 * flush() and needs_signal() publish, the driver sleeps (V3, P3).
 *
 * A wish is on or off (flags of split rings; ENABLE and DISABLE of packed ones), or with -DEVENT the
 * index that is waited for (EVENT_IDX of split rings; DESC of packed ones). Off is then an event that
 * has passed.
 *
 * Take away a fence (-DNO_PUBLISHER_FENCE, -DNO_SLEEPER_FENCE), the second look (-DNO_SECOND_LOOK),
 * or, with events, decide over the last batch only instead of over everything since the last
 * decision (-DLAST_BATCH_ONLY), and it fails: test/model/notify.sh checks all of them.
 */
#define LAST 4

#ifdef EVENT
#define ON taken
#define OFF ((taken + 255) % 256)
#define WANTED (wish_seen >= decided && wish_seen < published)
#else
#define ON 1
#define OFF 0
#define WANTED (wish_seen == 1)
#endif

mtype = { INDEX, WISH };

byte index = 0;
#ifdef EVENT
byte wish = 255;
#else
byte wish = 0;
#endif
bool woken = false; /* an eventfd: stays until it is read */

chan publisher_stores = [3] of { mtype, byte };
chan sleeper_stores = [3] of { mtype, byte };

/* Stores reach memory in order, whenever they like. */
proctype Drain(chan stores) {
    mtype var;
    byte value;
end:
    do
    :: atomic {
           stores ? var, value ->
           if
           :: var == INDEX -> index = value
           :: var == WISH -> wish = value
           fi
       }
    od
}

proctype Publisher() {
    byte published = 0, decided = 0, wish_seen;
    do
    :: published == LAST -> break
    :: published < LAST ->
#ifdef LAST_BATCH_ONLY
       decided = published;
#endif
       if
       :: published++
       :: published + 2 <= LAST -> published = published + 2
       fi;
       publisher_stores ! INDEX, published;
       if
       :: published < LAST -> skip /* flush() once more before needs_signal() */
       :: true ->
#ifndef NO_PUBLISHER_FENCE
          empty(publisher_stores); /* V3, P3; the driver's */
#endif
          wish_seen = wish;
          if
          :: WANTED -> woken = true
          :: else -> skip
          fi;
          decided = published
       fi
    od
}

proctype Sleeper() {
    byte taken = 0, seen;
    do
    :: taken == LAST -> break
    :: else ->
       seen = index; /* V1, P1 */
       if
       :: seen != taken -> taken++
       :: seen != taken -> taken = seen
       :: seen == taken ->
          sleeper_stores ! WISH, ON;
#ifndef NO_SLEEPER_FENCE
          empty(sleeper_stores); /* V4, P4; the driver's */
#endif
#ifndef NO_SECOND_LOOK
          seen = index;
#endif
          if
          :: seen != taken -> skip
          :: seen == taken -> atomic { woken -> woken = false }
          fi;
          sleeper_stores ! WISH, OFF
       fi
    od
}

init {
    atomic {
        run Drain(publisher_stores);
        run Drain(sleeper_stores);
        run Publisher();
        run Sleeper()
    }
}
