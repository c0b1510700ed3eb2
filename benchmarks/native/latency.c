/* Latencies in buckets: exact below 256 us, then 128 buckets for each doubling. */
#include "load.h"

#include <string.h>

enum { STEPS = 128, EXACT = 256, BUCKETS = EXACT + STEPS * 40 };

static uint64_t buckets[BUCKETS], total, longest;

void latency_clear(void) {
    memset(buckets, 0, sizeof buckets);
    total = longest = 0;
}

static int bucket_of(uint64_t value) {
    if (value < EXACT) return (int)value;
    int doublings = 63 - __builtin_clzll(value) - 8;
    int bucket = EXACT + doublings * STEPS + (int)((value >> (doublings + 1)) - STEPS);
    return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

static double middle_of(int bucket) {
    if (bucket < EXACT) return bucket;
    int doublings = (bucket - EXACT) / STEPS, step = (bucket - EXACT) % STEPS;
    double width = (double)(2ULL << doublings);
    return (STEPS + step) * width + width / 2;
}

void latency_add(uint64_t microseconds) {
    buckets[bucket_of(microseconds)]++;
    total++;
    if (microseconds > longest) longest = microseconds;
}

double latency_ms(double share) {
    if (!total) return 0;
    uint64_t rank = (uint64_t)(share * (double)(total - 1)), seen = 0;
    for (int bucket = 0; bucket < BUCKETS; bucket++) {
        seen += buckets[bucket];
        if (seen > rank) return middle_of(bucket) / 1000;
    }
    return latency_max_ms();
}

double latency_max_ms(void) { return (double)longest / 1000; }
