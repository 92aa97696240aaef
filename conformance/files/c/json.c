/* JSON, as much as a manifest has of it. */

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "files.h"

void stop(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(2);
}

void *allocate(long bytes) {
    void *found = calloc(bytes > 0 ? (size_t)bytes : 1, 1);
    if (!found) stop("There is no memory for %ld bytes.", bytes);
    return found;
}

static void blanks(const char **at) {
    while (**at && strchr(" \t\r\n", **at)) ++*at;
}

static char *text(const char **at) { /* what is not ASCII is not needed: \u00e9 becomes ? */
    const char *end = ++*at;
    while (*end && *end != '"') end += *end == '\\' && end[1] ? 2 : 1;
    char *found = allocate(end - *at + 1), *to = found;
    for (; *at < end; ++*at) {
        if (**at != '\\') {
            *to++ = **at;
        } else if (*++*at == 'u') {
            *to++ = '?';
            *at += end - *at > 4 ? 4 : 0;
        } else {
            *to++ = **at == 'n' ? '\n' : **at == 't' ? '\t' : **at;
        }
    }
    *at = *end ? end + 1 : end;
    return found;
}

static Json *value(const char **at);

static void add(Json *to, char *name, Json *item) {
    if (!(to->count & (to->count - 1))) { /* room for the next power of two */
        size_t room = 2 * (size_t)(to->count ? to->count : 1);
        to->items = realloc(to->items, room * sizeof *to->items);
        to->names = realloc(to->names, room * sizeof *to->names);
        if (!to->items || !to->names) stop("There is no memory for the manifest.");
    }
    to->names[to->count] = name;
    to->items[to->count++] = item;
}

static void members(const char **at, Json *into, char close) {
    ++*at;
    for (blanks(at); **at && **at != close; blanks(at)) {
        char *name = NULL;
        if (into->kind == JSON_OBJECT) {
            if (**at != '"') stop("The manifest is not JSON: a name is expected at \"%.20s\".", *at);
            name = text(at);
            blanks(at);
            if (**at != ':') stop("The manifest is not JSON: a colon is expected at \"%.20s\".", *at);
            ++*at;
        }
        add(into, name, value(at));
        blanks(at);
        if (**at == ',') ++*at;
    }
    if (**at) ++*at;
}

static Json *value(const char **at) {
    Json *found = allocate(sizeof *found);
    blanks(at);
    if (**at == '{') {
        found->kind = JSON_OBJECT;
        members(at, found, '}');
    } else if (**at == '[') {
        found->kind = JSON_LIST;
        members(at, found, ']');
    } else if (**at == '"') {
        found->kind = JSON_TEXT;
        found->text = text(at);
    } else if (!strncmp(*at, "true", 4) || !strncmp(*at, "false", 5)) {
        found->kind = JSON_BOOLEAN;
        found->number = **at == 't';
        *at += **at == 't' ? 4 : 5;
    } else if (!strncmp(*at, "null", 4)) {
        *at += 4;
    } else {
        char *end;
        found->kind = JSON_NUMBER;
        found->number = strtod(*at, &end);
        if (end == *at) stop("The manifest is not JSON: a value is expected at \"%.20s\".", *at);
        *at = end;
    }
    return found;
}

Json *json_read(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) stop("%s cannot be read.", path);
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    char *content = allocate(size + 1);
    if (fread(content, 1, (size_t)size, file) != (size_t)size) stop("%s cannot be read to its end.", path);
    fclose(file);
    const char *at = content;
    return value(&at);
}

Json *json_get(const Json *object, const char *name) {
    for (int i = 0; object && object->kind == JSON_OBJECT && i < object->count; i++)
        if (!strcmp(object->names[i], name)) return object->items[i];
    return NULL;
}

const char *json_text(const Json *object, const char *name) {
    const Json *found = json_get(object, name);
    if (!found || found->kind != JSON_TEXT) stop("The manifest has no text \"%s\" where it is expected.", name);
    return found->text;
}

double json_number(const Json *object, const char *name) {
    const Json *found = json_get(object, name);
    if (!found || (found->kind != JSON_NUMBER && found->kind != JSON_BOOLEAN))
        stop("The manifest has no number \"%s\" where it is expected.", name);
    return found->number;
}

double json_item(const Json *object, const char *name, int i) {
    const Json *found = json_get(object, name);
    if (!found || found->kind != JSON_LIST || i >= found->count || found->items[i]->kind != JSON_NUMBER)
        stop("The manifest has no list of numbers \"%s\" where it is expected.", name);
    return found->items[i]->number;
}
