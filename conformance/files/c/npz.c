/* .npz: a zip of .npy entries, here of such as are not compressed. See "Arrays" in FORMAT.md. */

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "files.h"

static uint32_t number(const unsigned char *at, int bytes) { /* little-endian */
    uint32_t found = 0;
    for (int i = 0; i < bytes; i++) found |= (uint32_t)at[i] << (8 * i);
    return found;
}

static double element(const char *dtype, const unsigned char *at) {
    union { uint64_t bits; double f8; int64_t i8; } wide = {0};
    union { uint32_t bits; float f4; int32_t i4; } narrow = {number(at, 4)};
    if (!strcmp(dtype, "<f4")) return narrow.f4;
    if (!strcmp(dtype, "<i4")) return narrow.i4;
    wide.bits = number(at, 4) | (uint64_t)number(at + 4, 4) << 32;
    return !strcmp(dtype, "<f8") ? wide.f8 : (double)wide.i8;
}

/* A header such as {'descr': '<f8', 'fortran_order': False, 'shape': (6, 9), } and then the numbers. */
static void npy(const char *path, const unsigned char *at, long size, Array *into) {
    if (size < 12 || memcmp(at, "\x93NUMPY", 6)) stop("%s: %s is no .npy.", path, into->name);
    long start = at[6] == 1 ? 10 : 12, length = (long)number(at + 8, at[6] == 1 ? 2 : 4);
    if (start + length > size) stop("%s: the header of %s is cut off.", path, into->name);
    char *header = allocate(length + 1), dtype[4] = "";
    memcpy(header, at + start, (size_t)length);
    const char *descr = strstr(header, "'descr': '"), *shape = strstr(header, "'shape': (");
    if (!descr || !shape || strstr(header, "'fortran_order': True"))
        stop("%s: %s is not in C order.", path, into->name);
    memcpy(dtype, descr + 10, 3);
    if (strcmp(dtype, "<f8") && strcmp(dtype, "<f4") && strcmp(dtype, "<i4") && strcmp(dtype, "<i8"))
        stop("%s: %s has dtype %s, expected <f8, <f4, <i4 or <i8.", path, into->name, dtype);
    into->size = 1;
    for (char *next = (char *)shape + 10; *next != ')' && into->dims < 8; next += strspn(next, ", ")) {
        into->shape[into->dims] = strtol(next, &next, 10);
        into->size *= into->shape[into->dims++];
    }
    long each = dtype[2] - '0';
    if (into->size < 0 || into->size > (size - start - length) / each) stop("%s: %s is cut off.", path, into->name);
    into->v = allocate(into->size * (long)sizeof(double));
    for (long i = 0; i < into->size; i++) into->v[i] = element(dtype, at + start + length + i * each);
}

void npz_read(const char *path, Arrays *into) {
    FILE *file = fopen(path, "rb");
    if (!file) stop("%s cannot be read.", path);
    fseek(file, 0, SEEK_END);
    long size = ftell(file), end = size - 22;
    rewind(file);
    unsigned char *all = allocate(size);
    if (fread(all, 1, (size_t)size, file) != (size_t)size) stop("%s cannot be read to its end.", path);
    fclose(file);
    while (end >= 0 && number(all + end, 4) != 0x06054b50) end--; /* the end of the central directory */
    if (end < 0) stop("%s is no zip.", path);
    const unsigned char *row = all + number(all + end + 16, 4); /* the central directory: sizes are right here */
    for (into->count = 0; into->count < (int)number(all + end + 10, 2); into->count++) {
        if (into->count == 512) stop("%s has more than 512 arrays.", path);
        long length = (long)number(row + 28, 2), local = (long)number(row + 42, 4);
        Array *array = &into->arrays[into->count];
        memset(array, 0, sizeof *array);
        if (number(row + 10, 2) != 0) stop("%s is compressed.", path);
        snprintf(array->name, sizeof array->name, "%.*s", (int)length - 4, (const char *)row + 46); /* without .npy */
        long data = local + 30 + (long)number(all + local + 26, 2) + (long)number(all + local + 28, 2);
        npy(path, all + data, (long)number(row + 24, 4), array);
        row += 46 + length + (long)number(row + 30, 2) + (long)number(row + 32, 2);
    }
}

static uint32_t crc32(const unsigned char *at, long size) {
    uint32_t crc = 0xffffffff;
    for (long i = 0; i < size; i++) {
        crc ^= at[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
    }
    return ~crc;
}

Array *array_find(Arrays *in, const char *format, ...) {
    char name[96];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    for (int i = 0; i < in->count; i++)
        if (!strcmp(in->arrays[i].name, name)) return &in->arrays[i];
    return NULL;
}

Array *array_add(Arrays *to, const double *v, const Array *like, const char *format, ...) {
    if (to->count == 512) stop("There are more than 512 arrays.");
    Array *array = &to->arrays[to->count++], copy = *like; /* like may be one of `to` */
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(copy.name, sizeof copy.name, format, arguments);
    va_end(arguments);
    copy.v = memcpy(allocate(copy.size * (long)sizeof *v), v, (size_t)copy.size * sizeof *v);
    *array = copy;
    return array;
}

typedef struct { unsigned char *at; long size, room; } Bytes;

static void put(Bytes *to, const void *from, long size) {
    if (to->size + size > to->room) {
        to->room = 2 * (to->size + size);
        to->at = realloc(to->at, (size_t)to->room);
        if (!to->at) stop("There is no memory for %ld bytes.", to->room);
    }
    memcpy(to->at + to->size, from, (size_t)size);
    to->size += size;
}

static void put_number(Bytes *to, uint32_t what, int bytes) {
    for (int i = 0; i < bytes; i++) put(to, &(unsigned char){what >> (8 * i) & 0xff}, 1);
}

/* What the local header and the central directory say alike of an entry. */
static void put_entry(Bytes *to, const char *name, uint32_t crc, long size) {
    uint32_t rows[] = {20, 0, 0, 0, 0x21}; /* version, flags, stored, time, date: 1980-01-01 */
    for (int i = 0; i < 5; i++) put_number(to, rows[i], 2);
    put_number(to, crc, 4);
    put_number(to, (uint32_t)size, 4);
    put_number(to, (uint32_t)size, 4);
    put_number(to, (uint32_t)strlen(name), 2);
    put_number(to, 0, 2);
}

static void entry(Bytes *zip, Bytes *directory, const char *of, const Bytes *npy) {
    char name[128];
    snprintf(name, sizeof name, "%s.npy", of);
    uint32_t crc = crc32(npy->at, npy->size);
    put_number(directory, 0x02014b50, 4);
    put_number(directory, 20, 2);
    put_entry(directory, name, crc, npy->size);
    for (int i = 0; i < 5; i++) put_number(directory, 0, 2); /* comment, disk, attributes */
    put_number(directory, (uint32_t)zip->size, 4);
    put(directory, name, (long)strlen(name));
    put_number(zip, 0x04034b50, 4);
    put_entry(zip, name, crc, npy->size);
    put(zip, name, (long)strlen(name));
    put(zip, npy->at, npy->size);
}

static void put_npy(Bytes *to, const char *dtype, int dims, const long *shape, const void *data, long bytes) {
    char header[256], sizes[160] = "";
    for (int d = 0; d < dims; d++) sprintf(sizes + strlen(sizes), "%ld,", shape[d]);
    snprintf(header, sizeof header, "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", dtype, sizes);
    long length = (long)strlen(header), filled = (10 + length + 1 + 63) / 64 * 64 - 10; /* a multiple of 64 in all */
    put(to, "\x93NUMPY\x01\x00", 8);
    put_number(to, (uint32_t)filled, 2);
    put(to, header, length);
    for (long i = length; i < filled; i++) put(to, i + 1 < filled ? " " : "\n", 1);
    put(to, data, bytes);
}

void npz_write(const char *path, const Arrays *from, const char *signature) {
    Bytes zip = {0}, directory = {0}, npy = {0};
    put_npy(&npy, "|u1", 1, &(long){(long)strlen(signature)}, signature, (long)strlen(signature));
    entry(&zip, &directory, "case_sha256", &npy);
    for (int i = 0; i < from->count; i++) {
        const Array *array = &from->arrays[i];
        npy.size = 0;
        put_npy(&npy, "<f8", array->dims, array->shape, array->v, array->size * (long)sizeof(double));
        entry(&zip, &directory, array->name, &npy);
    }
    long start = zip.size;
    put(&zip, directory.at, directory.size);
    put_number(&zip, 0x06054b50, 4);
    put_number(&zip, 0, 4);
    put_number(&zip, (uint32_t)from->count + 1, 2);
    put_number(&zip, (uint32_t)from->count + 1, 2);
    put_number(&zip, (uint32_t)directory.size, 4);
    put_number(&zip, (uint32_t)start, 4);
    put_number(&zip, 0, 2);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(zip.at, 1, (size_t)zip.size, file) != (size_t)zip.size || fclose(file))
        stop("%s cannot be written.", path);
}
