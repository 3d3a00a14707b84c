/* A closed-loop HTTP/1.1 load generator: N keep-alive connections, each sends the same request as soon as its answer is
 * complete. One thread, epoll. It must never be what is measured, so it is in C and does as little as it can per answer.
 *
 *   load HOST PORT CONNECTIONS WARM_SECONDS SECONDS REQUEST_FILE [CPU]
 *
 * REQUEST_FILE holds the whole request, head and body. After the time is up no request is sent, outstanding answers are
 * waited for (10 s), and one JSON object is printed. `answered` counts every complete answer with status 200, the warm-up
 * and the end included; `requests` and the latencies are those of the measured time alone.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER = 65536, BUCKETS = 4000000 }; /* microseconds, the last one takes all above */

struct connection {
    int fd;
    int busy;
    size_t sent, filled;
    double begun;
    char buffer[BUFFER];
};

static char *request;
static size_t request_length;
static unsigned *histogram;
static long answered, measured, errors, other;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static int dial(const char *host, int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    inet_pton(AF_INET, host, &address.sin_addr);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        perror("connect");
        exit(1);
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

/* The length of the answer at the start of the buffer: 0 when it is not complete, -1 when it cannot be read. */
static long complete(const char *data, size_t length) {
    const char *end = memmem(data, length, "\r\n\r\n", 4), *line;
    if (!end) return length < BUFFER ? 0 : -1;
    size_t head = end - data + 4;
    for (line = data; line < end; line = (const char *)memmem(line, end + 2 - line, "\r\n", 2) + 2) {
        if (!strncasecmp(line, "content-length:", 15)) {
            size_t whole = head + strtoul(line + 15, NULL, 10);
            return whole > BUFFER ? -1 : length >= whole ? (long)whole : 0;
        }
        if (!strncasecmp(line, "transfer-encoding: chunked", 26)) {
            size_t at = head;
            for (;;) {
                const char *stop = memmem(data + at, length - at, "\r\n", 2);
                if (!stop) return length < BUFFER ? 0 : -1;
                size_t size = strtoul(data + at, NULL, 16);
                at = stop - data + 2 + size + 2;
                if (at > length) return at > BUFFER ? -1 : 0;
                if (!size) return at;
            }
        }
    }
    return -1;
}

static void push(struct connection *c) {
    while (c->sent < request_length) {
        ssize_t n = send(c->fd, request + c->sent, request_length - c->sent, MSG_NOSIGNAL);
        if (n < 0) return; /* a request fits the socket's buffer; anything else shows as an error on reading */
        c->sent += n;
    }
}

static void begin(struct connection *c) {
    c->busy = 1;
    c->sent = c->filled = 0;
    c->begun = now();
    push(c);
}

int main(int argc, char **argv) {
    if (argc < 7) return fprintf(stderr, "load HOST PORT CONNECTIONS WARM SECONDS REQUEST_FILE [CPU]\n"), 2;
    const char *host = argv[1];
    int port = atoi(argv[2]), connections = atoi(argv[3]), outstanding = 0, queue = epoll_create1(0);
    double warm = atof(argv[4]), seconds = atof(argv[5]);
    if (argc > 7) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(atoi(argv[7]), &set);
        sched_setaffinity(0, sizeof set, &set);
    }
    FILE *file = fopen(argv[6], "rb");
    if (!file) return perror(argv[6]), 1;
    request = malloc(1 << 20);
    request_length = fread(request, 1, 1 << 20, file);
    histogram = calloc(BUCKETS, sizeof *histogram);
    struct connection *all = calloc(connections, sizeof *all);
    struct epoll_event events[256];
    for (int i = 0; i < connections; i++) {
        all[i].fd = dial(host, port);
        struct epoll_event wanted = {.events = EPOLLIN, .data.ptr = &all[i]};
        epoll_ctl(queue, EPOLL_CTL_ADD, all[i].fd, &wanted);
        begin(&all[i]);
        outstanding++;
    }
    double from = now() + warm, to = from + seconds, give_up = to + 10;
    while (outstanding) {
        int n = epoll_wait(queue, events, 256, 1000);
        double at = now();
        if (at > give_up) break;
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            ssize_t got = recv(c->fd, c->buffer + c->filled, BUFFER - c->filled, 0);
            long whole = -1;
            if (got > 0) {
                c->filled += got;
                whole = complete(c->buffer, c->filled);
                if (!whole) continue;
            } else if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
                continue;
            }
            at = now();
            if (c->busy) outstanding--;
            c->busy = 0;
            if (whole < 0) { /* closed, or an answer that cannot be read: begin afresh */
                errors++;
                close(c->fd);
                if (at >= to) continue;
                c->fd = dial(host, port);
                struct epoll_event wanted = {.events = EPOLLIN, .data.ptr = c};
                epoll_ctl(queue, EPOLL_CTL_ADD, c->fd, &wanted);
            } else {
                if (memcmp(c->buffer, "HTTP/1.1 200", 12)) other++;
                else answered++;
                if (at >= from && at < to) {
                    long us = (at - c->begun) * 1e6;
                    histogram[us < BUCKETS ? us : BUCKETS - 1]++;
                    measured++;
                }
            }
            if (at < to) {
                begin(c);
                outstanding++;
            }
        }
    }
    double at[] = {0.5, 0.9, 0.99}, found[3] = {0};
    long below = 0;
    int want = 0, slowest = 0;
    for (int us = 0; us < BUCKETS; us++) {
        if (!histogram[us]) continue;
        below += histogram[us];
        slowest = us;
        while (want < 3 && below >= at[want] * measured) found[want++] = us / 1e3;
    }
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double cpu = usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    printf("{\"requests\": %ld, \"seconds\": %.3f, \"rate\": %.1f, \"p50\": %.3f, \"p90\": %.3f, \"p99\": %.3f, "
           "\"max\": %.3f, \"answered\": %ld, \"other\": %ld, \"errors\": %ld, \"unanswered\": %d, \"cpu\": %.3f}\n",
           measured, seconds, measured / seconds, found[0], found[1], found[2], slowest / 1e3, answered, other, errors,
           outstanding, cpu);
    return 0;
}
