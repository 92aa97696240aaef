/* Reading manifest.json and .npz, and writing .npz: what by_hand.c needs of files. Nothing is freed: it ends soon. */

#ifndef FILES_H
#define FILES_H

typedef enum { JSON_NULL, JSON_BOOLEAN, JSON_NUMBER, JSON_TEXT, JSON_LIST, JSON_OBJECT } JsonKind;

typedef struct Json {
    JsonKind kind;
    double number;       /* of a number; 0 or 1 of a boolean */
    char *text;          /* of a text */
    int count;           /* of a list's items, or an object's */
    char **names;        /* of an object's items */
    struct Json **items;
} Json;

typedef struct {
    char name[96];
    int dims;
    long shape[8], size;
    double *v;           /* in C order, whatever the dtype in the file */
} Array;

typedef struct {
    int count;
    Array arrays[512];
} Arrays;

Json *json_read(const char *path);
Json *json_get(const Json *object, const char *name);     /* NULL where there is none */
const char *json_text(const Json *object, const char *name);
double json_number(const Json *object, const char *name);
double json_item(const Json *object, const char *name, int i);  /* of a list of numbers */

Array *array_find(Arrays *in, const char *format, ...);   /* NULL where there is none of that name */
Array *array_add(Arrays *to, const double *v, const Array *like, const char *format, ...);  /* a copy of v */
void npz_read(const char *path, Arrays *into);
void npz_write(const char *path, const Arrays *from, const char *signature);  /* as the entry case_sha256 */

void *allocate(long bytes);                               /* zeros */
void stop(const char *format, ...);                       /* prints a sentence, and ends with exit code 2 */

#endif
