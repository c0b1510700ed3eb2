/* Publishing: at a rate (a message's moment is when it was due, so that waiting for the server counts as latency) or
   as fast as a window of undelivered messages allows. Ends when everything expected has come, or at the limit. */
#define _GNU_SOURCE
#include "load.h"

#include <stdio.h>
#include <string.h>

static char body[BODY_BYTES], request[BODY_BYTES + 8192];
static uint64_t random_state;
static int next_publisher;

static uint64_t random_number(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static Connection *free_publisher(const Publishing *publishing) {
    if (publishing->to_stream) {
        Connection *publisher = &publishers[options.publishers];
        return publisher->state == OPEN && publisher->in_flight < publishing->window ? publisher : NULL;
    }
    for (int tried = 0; tried < options.publishers; tried++) {
        Connection *publisher = &publishers[next_publisher];
        next_publisher = (next_publisher + 1) % options.publishers;
        if (publisher->state == OPEN && publisher->in_flight < publishing->in_flight) return publisher;
    }
    return NULL;
}

static size_t put_message(const Publishing *publishing, size_t at, uint64_t due) {
    long user = first_user + (long)(random_number() % (uint64_t)publishing->users);
    return at + fill_to_size(body + at, sizeof body - at - 2, options.bodies[publishing->body], user, due, publishing->size);
}

/* One XADD. */
static void append_to_stream(const Publishing *publishing, Connection *publisher, uint64_t due) {
    size_t length = put_message(publishing, 0, due);
    size_t head = (size_t)snprintf(request, sizeof request, "%s$%zu\r\n", options.publish_command, length);
    memcpy(request + head, body, length);
    memcpy(request + head + length, "\r\n", 2);
    send_bytes(publisher, request, head + length + 2);
}

/* One POST, with an array of messages when there is more than one. */
static void post(const Publishing *publishing, Connection *publisher, uint64_t due) {
    bool is_batch = publishing->batch > 1;
    size_t length = 0;
    for (long index = 0; index < publishing->batch; index++) {
        if (is_batch) body[length++] = index ? ',' : '[';
        length = put_message(publishing, length, due);
    }
    if (is_batch) body[length++] = ']';
    size_t head = (size_t)snprintf(
        request, sizeof request,
        "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n%sContent-Length: %zu\r\n\r\n",
        is_batch ? options.batch_path : options.publish_path, options.publish_headers, length);
    memcpy(request + head, body, length);
    send_bytes(publisher, request, head + length);
}

static void open_publishers(const Publishing *publishing) {
    int first = publishing->to_stream ? options.publishers : 0;
    int end = publishing->to_stream ? first + 1 : options.publishers;
    /* Afresh for each phase: a server may be about to end a connection that was idle. */
    for (int number = first; number < end; number++) {
        close_connection(&publishers[number], true);
        open_connection(&publishers[number]);
    }
    for (int number = first; number < end; number++)
        while (publishers[number].state == CONNECTING) pump(10);
}

/* In messages: what every reader has got is done. */
static uint64_t done_of(const Publishing *publishing, int audience) {
    if (publishing->audience == TO_NONE || !audience) return counts.published;
    return publishing->audience == TO_ALL ? counts.delivered / (uint64_t)audience : counts.delivered;
}

/* Publishes what is due or fits the window; returns the milliseconds until the next is due. */
static int publish_due(const Publishing *publishing, uint64_t begun, int audience, uint64_t *requests) {
    uint64_t now = now_us();
    while (counts.published < (uint64_t)publishing->count) {
        uint64_t due = now;
        if (publishing->rate > 0) {
            due = begun + (uint64_t)((double)counts.published * 1e6 / publishing->rate);
            if (due > now) return (int)((due - now) / 1000);
        } else if (counts.published - done_of(publishing, audience) + (uint64_t)publishing->batch > (uint64_t)publishing->window)
            break;
        Connection *publisher = free_publisher(publishing);
        if (!publisher) break;
        publisher->in_flight++;
        ++*requests;
        counts.published += publishing->to_stream ? 1 : (uint64_t)publishing->batch;
        if (publishing->to_stream) append_to_stream(publishing, publisher, due);
        else post(publishing, publisher, due);
    }
    return 100;
}

static uint64_t expected_of(const Publishing *publishing, int audience, uint64_t messages) {
    return publishing->audience == TO_ALL ? messages * (uint64_t)audience : publishing->audience == TO_ONE ? messages : 0;
}

static void print_answer(const Publishing *publishing, int audience, double seconds) {
    uint32_t least = UINT32_MAX, most = 0;
    for (int number = 0; number < options.connections; number++) {
        Connection *client = &clients[number];
        if (client->is_slow || client->state != OPEN) continue;
        if (client->received < least) least = client->received;
        if (client->received > most) most = client->received;
    }
    printf("\"published\":%llu,\"answered\":%llu,\"refused\":%llu,\"expected\":%llu,\"delivered\":%llu,\"bytes\":%llu,"
           "\"seconds\":%.6f,\"least\":%u,\"most\":%u,\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"p999_ms\":%.3f,\"max_ms\":%.3f,",
           (unsigned long long)counts.published, (unsigned long long)counts.answered, (unsigned long long)counts.refused,
           (unsigned long long)expected_of(publishing, audience, counts.published), (unsigned long long)counts.delivered,
           (unsigned long long)counts.bytes, seconds, least == UINT32_MAX ? 0 : least, most, latency_ms(0.5), latency_ms(0.99),
           latency_ms(0.999), latency_max_ms());
}

void publish(const Publishing *publishing) {
    int audience = readers;
    uint64_t requests = 0, total = (uint64_t)publishing->count;
    open_publishers(publishing);
    random_state = 88172645463325252ULL + (uint64_t)publishing->seed;
    for (int number = 0; number < options.connections; number++) clients[number].received = 0;
    phase_begins();
    uint64_t begun = now_us(), limit = begun + (uint64_t)(publishing->limit_seconds * 1e6);
    while (now_us() < limit) {
        int wait_ms = publish_due(publishing, begun, audience, &requests);
        bool is_published = counts.published >= total && counts.answered >= requests;
        if (is_published && counts.delivered >= expected_of(publishing, audience, total)) break;
        pump(wait_ms);
    }
    print_answer(publishing, audience, (double)(now_us() - begun) / 1e6);
}
