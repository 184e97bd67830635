/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Unpublish, grace period, reuse: every interleaving of one writer and two readers, each with a
 * FIFO store buffer in front of memory. Loads may pass buffered stores of their own thread, which is
 * what x86 allows and the part of Arm that matters here; and the token's release increment does not
 * drain the buffer (on x86 it would, on Arm it need not).
 *
 * Labels are those of doc/ordering.md. Remove a fence with -DNO_WRITER_FENCE (Q3),
 * -DNO_READER_FENCE (Q1), the wait with -DNO_WAIT, or load the generation after what is remembered
 * with it (-DGENERATION_LATE), and the assertion fails: test/model/grace.sh checks all five.
 */
#define READERS 2
#define SECTIONS 2

mtype = { ENTRY, GENERATION, TOKEN, COUNT };

byte entry = 1;       /* 1: maps the page; 0: nothing */
byte generation = 0;
byte token = 1;
byte count[READERS];  /* 0: offline; else the token at entry */
bool reused = false;  /* the page (or node) belongs to somebody else now */

chan writer_stores = [4] of { mtype, byte, byte };
chan reader_stores[READERS] = [4] of { mtype, byte, byte };

/* Stores reach memory in order, whenever they like. */
proctype Drain(chan stores) {
    mtype var;
    byte index, value;
end:
    do
    :: atomic {
           stores ? var, index, value ->
           if
           :: var == ENTRY -> entry = value
           :: var == GENERATION -> generation = value
           :: var == TOKEN -> token = value
           :: var == COUNT -> count[index] = value
           fi
       }
    od
}

proctype Reader(byte id) {
    byte section, t, g, e;
    byte cached_generation = 0; /* translated once before we begin */
    bool cached = true;
    for (section : 1 .. SECTIONS) {
        t = token;
        reader_stores[id] ! COUNT, id, t;
#ifndef NO_READER_FENCE
        empty(reader_stores[id]); /* Q1 */
#endif
#ifdef GENERATION_LATE
        e = entry;
        g = generation;
#else
        g = generation; /* R3 */
        e = entry;      /* R1, R2; loaded whether it is needed or not */
#endif
        if
        :: cached && g == cached_generation -> /* the ring page of an earlier section */
           assert(!reused)
        :: else ->
           cached = false;
           if
           :: e == 1 ->
              assert(!reused);
              cached = true;
              cached_generation = g
           :: else -> skip
           fi
        fi;
        reader_stores[id] ! COUNT, id, 0 /* Q2 */
    }
}

proctype Writer() {
    byte id, seen;
    writer_stores ! ENTRY, 0, 0;      /* unpublish */
    writer_stores ! GENERATION, 0, 1; /* W3 */
#ifndef NO_WRITER_FENCE
    empty(writer_stores);             /* Q3 */
#endif
    writer_stores ! TOKEN, 0, 2;
#ifndef NO_WAIT
    for (id : 0 .. READERS - 1) {
        do
        :: seen = count[id];
           if
           :: seen == 0 || seen >= 2 -> break
           :: else -> skip
           fi
        od
    };
#endif
    reused = true /* the UNMAP is answered, the node is free */
}

init {
    byte id;
    atomic {
        run Drain(writer_stores);
        run Writer();
        for (id : 0 .. READERS - 1) {
            run Drain(reader_stores[id]);
            run Reader(id)
        }
    }
}
