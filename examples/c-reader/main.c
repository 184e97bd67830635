/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Translate a guest's I/O addresses from a process that is not ours, in C.
 *
 *   c-reader [-w] SOCKET ENDPOINT ADDRESS[+BYTES]...    what each is in guest memory
 *   c-reader -r SECONDS SOCKET ENDPOINT ADDRESS+BYTES   translations per second, page after page
 *
 *   -w           ask for write access instead of read access
 *   -r SECONDS   print a rate every second, for so long
 *
 * Exit status: 0 all were translated, 1 some were faults (the guest has been told), 2 an error.
 *
 *   cc -std=c99 main.c $(pkg-config --cflags --libs libviommu)
 */
#define _POSIX_C_SOURCE 200809L
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <viommu.h>

enum { kBurst = 32, kPage = 4096, kTimeoutMs = 5000 };

static int usage(void)
{
    fputs("usage: c-reader [-w] SOCKET ENDPOINT ADDRESS[+BYTES]...\n"
          "       c-reader -r SECONDS [-w] SOCKET ENDPOINT ADDRESS+BYTES\n",
          stderr);
    return 2;
}

/* "0x1000+64"; without a length, one byte. */
static int parse_range(const char *text, struct viommu_lookup *range)
{
    char *end;
    range->iova = strtoull(text, &end, 0);
    range->bytes = 1;
    if (end == text) return 0;
    if (*end == '+') {
        text = end + 1;
        range->bytes = strtoull(text, &end, 0);
        if (end == text || range->bytes == 0) return 0;
    }
    return *end == 0;
}

static void print_run(uint64_t iova, struct viommu_run run)
{
    static const char *const reasons[] = {"unknown", "no domain", "not mapped"};
    if (viommu_run_bytes(run) == 0)
        printf("%#" PRIx64 " fault: %s\n", iova, reasons[viommu_run_fault(run) % 3]);
    else
        printf("%#" PRIx64 " -> %#" PRIx64 " %" PRIu64 " bytes %s%s%s\n", iova, run.gpa,
               viommu_run_bytes(run), viommu_run_rights(run) & VIOMMU_READ ? "r" : "-",
               viommu_run_rights(run) & VIOMMU_WRITE ? "w" : "-",
               viommu_run_is_mmio(run) ? " mmio" : "");
}

/* A range may be several runs. Each is a section of its own here, because nothing that may block,
 * such as printing, belongs into one; a program that touches guest memory does that inside. */
static int translate_all(viommu_reader *r, struct viommu_lookup range, unsigned access)
{
    while (range.bytes > 0) {
        struct viommu_run run;
        viommu_enter(r);
        run = viommu_translate(r, range.iova, range.bytes, access);
        viommu_leave(r);
        print_run(range.iova, run);
        if (viommu_run_bytes(run) == 0) {
            viommu_report(r, range.iova, access, viommu_run_fault(run));
            return 1;
        }
        range.iova += viommu_run_bytes(run);
        range.bytes -= viommu_run_bytes(run);
    }
    return 0;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Half of each second one by one, half in bursts; a section per burst either way. */
static int measure(const viommu_client *v, viommu_reader *r, struct viommu_lookup range,
                   unsigned access, unsigned seconds)
{
    struct viommu_lookup in[kBurst];
    struct viommu_run out[kBurst];
    const uint64_t pages = (range.bytes + kPage - 1) / kPage;
    uint64_t faults = 0, page = 0;
    unsigned s;
    for (s = 0; s < seconds; ++s) {
        double ns[2];
        int in_bursts;
        for (in_bursts = 0; in_bursts < 2; ++in_bursts) {
            const double start = now();
            uint64_t count = 0;
            double took;
            do {
                unsigned burst, i;
                for (burst = 0; burst < 256; ++burst) {
                    for (i = 0; i < kBurst; ++i) {
                        in[i].iova = range.iova + page * kPage;
                        in[i].bytes = 64;
                        if (++page == pages) page = 0;
                    }
                    viommu_enter(r);
                    if (in_bursts) {
                        faults += viommu_translate_burst(r, in, out, kBurst, access);
                    } else {
                        for (i = 0; i < kBurst; ++i) {
                            out[i] = viommu_translate(r, in[i].iova, in[i].bytes, access);
                            faults += viommu_run_bytes(out[i]) == 0;
                        }
                    }
                    viommu_leave(r);
                    count += kBurst;
                }
                took = now() - start;
            } while (took < 0.5);
            ns[in_bursts] = took * 1e9 / (double)count;
        }
        printf("single %.2f ns  burst of %d %.2f ns  per address; %" PRIu64 " faults\n", ns[0],
               kBurst, ns[1], faults);
        fflush(stdout);
        if (!viommu_connected(v)) {
            fputs("c-reader: the daemon has let go of us\n", stderr);
            return 2;
        }
    }
    return faults != 0;
}

int main(int argc, char **argv)
{
    unsigned access = VIOMMU_READ, seconds = 0;
    viommu_client *v;
    viommu_reader *r;
    int option, i, status = 0;

    while ((option = getopt(argc, argv, "wr:")) != -1) {
        if (option == 'w')
            access = VIOMMU_WRITE;
        else if (option != 'r' || (seconds = (unsigned)strtoul(optarg, NULL, 0)) == 0)
            return usage();
    }
    argc -= optind;
    argv += optind;
    if (argc < 3 || (seconds != 0 && argc != 3)) return usage();

    v = viommu_open(argv[0], kTimeoutMs);
    if (v == NULL) {
        fprintf(stderr, "c-reader: %s\n", viommu_error());
        return 2;
    }
    r = viommu_reader_create(v, (uint32_t)strtoul(argv[1], NULL, 0));
    if (r == NULL) {
        fprintf(stderr, "c-reader: guest %s: %s\n", viommu_guest(v), viommu_error());
        viommu_close(v);
        return 2;
    }
    for (i = 2; i < argc; ++i) {
        struct viommu_lookup range;
        if (!parse_range(argv[i], &range)) {
            fprintf(stderr, "c-reader: '%s' is not ADDRESS or ADDRESS+BYTES\n", argv[i]);
            status = 2;
            break;
        }
        status |= seconds != 0 ? measure(v, r, range, access, seconds)
                               : translate_all(r, range, access);
    }
    viommu_reader_destroy(r);
    viommu_close(v);
    return status;
}
