/* Texts with places: {i} the user's number, {t} its token, {ts} the moment in us, {pad} filler, {epoch0} {offset0}
   {epoch1} {offset1} where a client stands. Other braces stay, since the texts are JSON. */
#define _GNU_SOURCE
#include "load.h"

#include <stdio.h>
#include <string.h>

static size_t put_number(char *into, uint64_t value) {
    char digits[24];
    size_t length = 0, at = 0;
    do digits[length++] = (char)('0' + value % 10);
    while (value /= 10);
    while (length) into[at++] = digits[--length];
    return at;
}

static bool starts(const char **template, const char *name) {
    size_t length = strlen(name);
    if (strncmp(*template, name, length)) return false;
    *template += length;
    return true;
}

static size_t put_text(char *into, size_t room, const char *text) {
    size_t length = strlen(text);
    if (length > room) length = room;
    memcpy(into, text, length);
    return length;
}

size_t fill(char *into, size_t capacity, const char *template, long user, const Place *places, uint64_t ts, size_t pad) {
    size_t at = 0;
    while (*template && at + 32 < capacity) {
        const char *brace = strchrnul(template, '{');
        size_t plain = (size_t)(brace - template);
        if (plain > capacity - at - 32) plain = capacity - at - 32;
        memcpy(into + at, template, plain);
        at += plain;
        template += plain;
        if (*template != '{') continue;
        if (starts(&template, "{i}")) at += put_number(into + at, (uint64_t)user);
        else if (starts(&template, "{ts}")) at += put_number(into + at, ts);
        else if (starts(&template, "{t}")) at += put_text(into + at, capacity - at - 32, options.tokens[user % options.token_count]);
        else if (starts(&template, "{pad}")) {
            for (size_t index = 0; index < pad && at + 32 < capacity; index++) into[at++] = (char)('a' + index % 26);
        } else if (places && starts(&template, "{epoch0}")) at += put_text(into + at, capacity - at - 32, places[0].epoch);
        else if (places && starts(&template, "{epoch1}")) at += put_text(into + at, capacity - at - 32, places[1].epoch);
        else if (places && starts(&template, "{offset0}")) at += put_number(into + at, places[0].offset);
        else if (places && starts(&template, "{offset1}")) at += put_number(into + at, places[1].offset);
        else into[at++] = *template++;
    }
    into[at] = 0;
    return at;
}

size_t fill_to_size(char *into, size_t capacity, const char *template, long user, uint64_t ts, size_t size) {
    size_t bare = fill(into, capacity, template, user, NULL, ts, 0);
    if (bare >= size) return bare;
    return fill(into, capacity, template, user, NULL, ts, size - bare);
}
