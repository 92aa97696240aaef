/* What the manifest says of a network, as by_hand.c wants it. */

#ifndef MODEL_H
#define MODEL_H

#include "files.h"

enum { LAYERS = 32, PARTS = 8 };

typedef struct {
    const Json *row, *synapses, *parts[PARTS]; /* parts: what the manifest calls neurons; synapses: NULL for none */
    int count, learns;                         /* of parts; whether it or a layer below has something to learn */
    long in, u, out;                           /* numbers per sample: arriving, behind the synapses, leaving */
} Layer;

typedef struct { /* of synapses or of a pool; of one pixel for a dense layer */
    long H, W, C, kh, kw, sh, sw, top, left, height, width;
} Window;

int read_model(const Json *model, Layer *into); /* the number L of the last layer; layer 0 is the input */
Window window_of(const Json *of);
int is(const Json *part, const char *kind);
long product(const Json *shape);
Array shaped(int rows, const Json *shape);      /* no numbers yet; rows: N in front, or 0 */

#endif
