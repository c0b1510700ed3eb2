/* Publishing: at a rate (a message's moment is when it was due, so that waiting for the server counts as latency) or
   as fast as a window of undelivered messages allows. Ends when everything expected has come, or at the limit. */
#define _GNU_SOURCE
#include "load.h"

#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>

static char body[BODY_BYTES], request[BODY_BYTES + 8192];
static uint64_t random_state;
static int next_publisher;

static uint64_t random_number(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static Connection *free_publisher(long in_flight) {
    for (int tried = 0; tried < options.publishers; tried++) {
        Connection *publisher = &publishers[next_publisher];
        next_publisher = (next_publisher + 1) % options.publishers;
        if (publisher->state == OPEN && publisher->in_flight < in_flight) return publisher;
    }
    return NULL;
}

/* One request with a batch of messages, the first due at `due`. */
static void send_request(const Publishing *publishing, Connection *publisher, uint64_t due) {
    const char *template = options.bodies[publishing->body];
    bool is_list = publishing->batch > 1 && !options.publishes_to_redis;
    size_t length = 0, head;
    for (long index = 0; index < publishing->batch; index++) {
        long user = first_user + (long)(random_number() % (uint64_t)options.connections);
        if (is_list) body[length++] = index ? ',' : '[';
        size_t item = fill_to_size(body + length, sizeof body - length - 2, template, user, due, publishing->size);
        if (options.publishes_to_redis) {
            head = (size_t)snprintf(request, sizeof request, "%s$%zu\r\n", options.publish_command, item);
            memcpy(request + head, body, item);
            memcpy(request + head + item, "\r\n", 2);
            publisher->in_flight++;
            send_bytes(publisher, request, head + item + 2);
        } else length += item;
    }
    counts.published += (uint64_t)publishing->batch;
    if (options.publishes_to_redis) return;
    if (is_list) body[length++] = ']';
    head = (size_t)snprintf(request, sizeof request,
                            "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n%sContent-Length: %zu\r\n\r\n",
                            options.publish_path, options.publish_headers, length);
    memcpy(request + head, body, length);
    publisher->in_flight++;
    send_bytes(publisher, request, head + length);
}

static void open_publishers(void) {
    for (int number = 0; number < options.publishers; number++)
        if (publishers[number].fd < 0) open_connection(&publishers[number]);
    for (int number = 0; number < options.publishers; number++)
        while (publishers[number].state == CONNECTING) pump(10);
}

static uint64_t expected_of(const Publishing *publishing, int audience, uint64_t messages) {
    return publishing->audience == TO_ALL ? messages * (uint64_t)audience : publishing->audience == TO_ONE ? messages : 0;
}

void publish(const Publishing *publishing) {
    int audience = readers;
    uint64_t total = (uint64_t)publishing->count, requests = 0;
    open_publishers();
    random_state = 88172645463325252ULL + (uint64_t)publishing->seed;
    memset(&counts, 0, sizeof counts);
    latency_clear();
    problem[0] = 0;
    for (int number = 0; number < options.connections; number++) clients[number].received = 0;
    uint64_t begun = now_us(), limit = begun + (uint64_t)(publishing->limit_seconds * 1e6), now = begun;
    while (now < limit) {
        now = now_us();
        int wait_ms = 100;
        while (counts.published < total) {
            uint64_t due = now;
            if (publishing->rate > 0) {
                due = begun + (uint64_t)((double)counts.published * 1e6 / publishing->rate);
                if (due > now) {
                    wait_ms = (int)((due - now) / 1000);
                    break;
                }
            } else {
                /* In messages: what every reader has got is done. */
                uint64_t done = publishing->audience == TO_ALL   ? counts.delivered / (uint64_t)(audience ? audience : 1)
                                : publishing->audience == TO_ONE ? counts.delivered
                                                                 : counts.published;
                if (counts.published - done + (uint64_t)publishing->batch > (uint64_t)publishing->window) break;
            }
            Connection *publisher = free_publisher(publishing->in_flight);
            if (!publisher) break;
            send_request(publishing, publisher, due);
            requests += options.publishes_to_redis ? (uint64_t)publishing->batch : 1;
        }
        if (counts.published >= total && counts.answered >= requests &&
            counts.delivered >= expected_of(publishing, audience, total))
            break;
        pump(wait_ms);
    }
    double seconds = (double)(now_us() - begun) / 1e6;
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
           (unsigned long long)expected_of(publishing, audience, total), (unsigned long long)counts.delivered,
           (unsigned long long)counts.bytes, seconds, least == UINT32_MAX ? 0 : least, most, latency_ms(0.5), latency_ms(0.99),
           latency_ms(0.999), latency_max_ms());
}
