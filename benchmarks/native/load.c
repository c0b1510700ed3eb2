/* The load generator: many WebSocket or SSE clients and a few publishers on one thread.

   It takes commands on stdin, one a line, and answers each with one line of JSON; between commands it keeps reading and
   answers pings. It measures only what clients see; whoever runs it looks at the server's CPU and memory. */
#define _GNU_SOURCE
#include "load.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

Options options = {.connections = 1000, .handshakes_at_once = 64, .publishers = 1, .sources = 4, .path = "/",
                   .headers = "", .publish_path = "/", .batch_path = "/", .publish_headers = ""};
Counts counts;
Connection *clients, *publishers;
int first_user, open_clients, readers;
bool is_returning;
char problem[400];

static int poller;
static Connection commands = {.role = COMMANDS, .fd = STDIN_FILENO};
static bool has_command;

uint64_t now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

void note_problem(const char *format, ...) {
    if (problem[0]) return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(problem, sizeof problem, format, arguments);
    va_end(arguments);
}

void watch(Connection *connection, uint32_t events, int operation) {
    struct epoll_event event = {.events = events, .data.ptr = connection};
    if (connection->fd >= 0) epoll_ctl(poller, operation, connection->fd, &event);
}

void pump(int milliseconds) {
    struct epoll_event events[1024];
    int count = epoll_wait(poller, events, 1024, milliseconds);
    for (int index = 0; index < count; index++) {
        Connection *connection = events[index].data.ptr;
        if (connection->role == COMMANDS) has_command = true;
        else if (connection->state != CLOSED && connection->state != IDLE) on_events(connection, events[index].events);
    }
}

static double option(const char *command, const char *name, double otherwise) {
    char key[32];
    snprintf(key, sizeof key, " %s=", name);
    const char *found = strstr(command, key);
    return found ? strtod(found + strlen(key), NULL) : otherwise;
}

void phase_begins(void) {
    memset(&counts, 0, sizeof counts);
    latency_clear();
    problem[0] = 0;
}

/* Until all are open, and, if they are to catch up, each has got something. */
static void connect_clients(const char *command) {
    bool catches_up = option(command, "catch_up", 0) != 0;
    double limit_seconds = option(command, "limit", 60);
    int next = 0, at_once = (int)option(command, "at_once", options.handshakes_at_once);
    phase_begins();
    is_returning = option(command, "return", 0) != 0;
    first_user = (int)option(command, "first", first_user);
    uint64_t begun = now_us(), limit = begun + (uint64_t)(limit_seconds * 1e6);
    while (now_us() < limit) {
        while (next < options.connections && next - counts.opened - counts.failed < at_once)
            open_connection(&clients[next++]);
        bool is_done = counts.opened + counts.failed >= options.connections;
        if (is_done && (!catches_up || counts.delivered >= (uint64_t)counts.opened)) break;
        pump(100);
    }
    int empty = 0;
    for (int number = 0; number < options.connections; number++) empty += clients[number].received == 0;
    printf("\"seconds\":%.6f,\"delivered\":%llu,\"without\":%d,", (double)(now_us() - begun) / 1e6,
           (unsigned long long)counts.delivered, empty);
}

static void cut_clients(void) {
    phase_begins();
    for (int number = 0; number < options.connections; number++) {
        clients[number].is_slow = number < (int)(options.slow_share * options.connections);
        close_connection(&clients[number], true);
    }
}

static void wait_seconds(double seconds) {
    phase_begins();
    for (uint64_t end = now_us() + (uint64_t)(seconds * 1e6), now; (now = now_us()) < end;) pump((int)((end - now) / 1000) + 1);
}

static void run(char *command) {
    printf("{");
    if (!strncmp(command, "connect", 7)) connect_clients(command);
    else if (!strncmp(command, "cut", 3)) cut_clients();
    else if (!strncmp(command, "wait", 4)) wait_seconds(option(command, "seconds", 1));
    else if (!strncmp(command, "publish", 7)) {
        Publishing publishing = {
            .count = (long)option(command, "count", 1), .batch = (long)option(command, "batch", 1),
            .window = (long)option(command, "window", 1), .in_flight = (long)option(command, "in_flight", 1),
            .seed = (long)option(command, "seed", 1), .rate = option(command, "rate", 0),
            .users = (long)option(command, "users", options.connections), .to_stream = option(command, "stream", 0) != 0,
            .limit_seconds = option(command, "limit", 60), .body = (int)option(command, "body", 0),
            .size = (size_t)option(command, "size", 200), .audience = (unsigned)option(command, "audience", 0)};
        publish(&publishing);
    }
    char *quote = problem;
    while ((quote = strpbrk(quote, "\"\\\r\n\t"))) *quote = ' ';
    printf("\"open\":%d,\"opened\":%d,\"failed\":%d,\"closed\":%d,\"slow_closed\":%d,\"pings\":%llu,\"problem\":\"%s\"}\n",
           open_clients, counts.opened, counts.failed, counts.closed, counts.slow_closed, (unsigned long long)counts.pings, problem);
    fflush(stdout);
}

static void read_tokens(const char *path) {
    FILE *file = fopen(path, "r");
    char *line = NULL;
    size_t capacity = 0;
    ssize_t length;
    if (!file) {
        perror(path);
        exit(2);
    }
    while ((length = getline(&line, &capacity, file)) > 0) {
        if (line[length - 1] == '\n') line[length - 1] = 0;
        options.tokens = realloc(options.tokens, (size_t)(options.token_count + 1) * sizeof *options.tokens);
        options.tokens[options.token_count++] = strdup(line);
    }
    free(line);
    fclose(file);
}

static void read_options(int count, char **values) {
    static const struct option known[] = {
        {"sse", 0, 0, 's'}, {"port", 1, 0, 'p'}, {"path", 1, 0, 'P'}, {"connections", 1, 0, 'n'}, {"at-once", 1, 0, 'w'},
        {"init", 1, 0, 'i'}, {"return-init", 1, 0, 'I'}, {"ready", 1, 0, 'r'}, {"headers", 1, 0, 'h'}, {"tokens", 1, 0, 't'},
        {"mark", 1, 0, 'm'}, {"slow", 1, 0, 'S'}, {"sources", 1, 0, 'A'}, {"body", 1, 0, 'b'}, {"publishers", 1, 0, 'c'},
        {"publish-port", 1, 0, 'u'}, {"publish-path", 1, 0, 'U'}, {"publish-headers", 1, 0, 'H'},
        {"batch-path", 1, 0, 'B'}, {"publish-socket", 1, 0, 'x'}, {"publish-command", 1, 0, 'X'}, {0}};
    int letter, marks = 0;
    while ((letter = getopt_long(count, values, "", known, NULL)) != -1) switch (letter) {
        case 's': options.is_sse = true; break;
        case 'p': options.port = atoi(optarg); break;
        case 'P': options.path = optarg; break;
        case 'n': options.connections = atoi(optarg); break;
        case 'w': options.handshakes_at_once = atoi(optarg); break;
        case 'i': options.init = optarg; break;
        case 'I': options.return_init = optarg; break;
        case 'r': options.ready = optarg; break;
        case 'h': options.headers = optarg; break;
        case 't': read_tokens(optarg); break;
        case 'm': if (marks < MARKS) options.marks[marks++] = optarg; break;
        case 'S': options.slow_share = atof(optarg); break;
        case 'A': options.sources = atoi(optarg); break;
        case 'b': if (options.body_count < MAX_BODIES) options.bodies[options.body_count++] = optarg; break;
        case 'c': options.publishers = atoi(optarg); break;
        case 'u': options.publish_port = atoi(optarg); break;
        case 'U': options.publish_path = optarg; break;
        case 'H': options.publish_headers = optarg; break;
        case 'B': options.batch_path = optarg; break;
        case 'x': options.publish_socket = optarg; break;
        case 'X': options.publish_command = optarg; break;
        default: exit(2);
        }
    if (!options.publish_port) options.publish_port = options.port;
}

static Connection *make_connections(int count, Role role) {
    Connection *made = calloc((size_t)count + 1, sizeof *made);
    if (!made) abort();
    for (int number = 0; number < count; number++) {
        made[number].role = role;
        made[number].fd = -1;
        made[number].number = number;
        made[number].is_slow = role == CLIENT && number < (int)(options.slow_share * count);
    }
    return made;
}

int main(int count, char **values) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    setvbuf(stdin, NULL, _IONBF, 0); /* lines that wait must stay visible to epoll */
    read_options(count, values);
    poller = epoll_create1(EPOLL_CLOEXEC);
    clients = make_connections(options.connections, CLIENT);
    publishers = make_connections(options.publishers, PUBLISHER);
    publishers[options.publishers] = (Connection){.role = STREAM_PUBLISHER, .fd = -1};
    watch(&commands, EPOLLIN, EPOLL_CTL_ADD);
    char *line = NULL;
    size_t capacity = 0;
    for (;;) {
        has_command = false;
        while (!has_command) pump(-1);
        if (getline(&line, &capacity, stdin) <= 0) return 0;
        run(line);
    }
}
