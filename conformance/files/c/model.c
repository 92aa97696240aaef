/* What the manifest says of a network: see "Models" in FORMAT.md. */

#include <string.h>

#include "model.h"

int is(const Json *part, const char *kind) { return !strcmp(json_text(part, "kind"), kind); }

long product(const Json *shape) {
    long found = 1;
    for (int i = 0; i < shape->count; i++) found *= (long)shape->items[i]->number;
    return found;
}

Array shaped(int rows, const Json *shape) { /* rows: N in front, or 0 */
    Array found = {.size = rows ? rows : 1, .dims = rows > 0, .shape = {rows}};
    for (int i = 0; shape && i < shape->count; i++) {
        found.size *= found.shape[found.dims] = (long)shape->items[i]->number;
        found.dims++;
    }
    return found;
}

Window window_of(const Json *of) {
    const Json *p = json_get(of, "padding");
    if (!p) return (Window){1, 1, (long)json_item(of, "in_shape", 0), 1, 1, 1, 1, 0, 0, 1, 1};
    Window w = {.top = (long)json_number(p, "top"), .left = (long)json_number(p, "left")};
    w.H = (long)json_item(of, "in_shape", 0), w.W = (long)json_item(of, "in_shape", 1);
    w.C = (long)json_item(of, "in_shape", 2);
    w.kh = (long)json_item(of, "kernel", 0), w.kw = (long)json_item(of, "kernel", 1);
    w.sh = (long)json_item(of, "stride", 0), w.sw = (long)json_item(of, "stride", 1);
    w.height = (w.H + w.top + (long)json_number(p, "bottom") - w.kh) / w.sh + 1;
    w.width = (w.W + w.left + (long)json_number(p, "right") - w.kw) / w.sw + 1;
    return w;
}

int read_model(const Json *model, Layer *layers) {
    const Json *rows = json_get(model, "layers");
    int L = rows->count - 1;
    if (L >= LAYERS) stop("The network has more than %d layers.", LAYERS);
    for (int l = 0; l <= L; l++) {
        const Json *neurons = json_get(rows->items[l], "neurons"), *from = json_get(rows->items[l], "inputs");
        Layer layer = {.row = rows->items[l], .count = neurons->count};
        layer.synapses = json_get(layer.row, "synapses");
        if (layer.count > PARTS) stop("Layer %d has more than %d parts.", l, PARTS);
        layer.out = product(json_get(layer.row, "out_shape"));
        layer.in = l ? layers[(int)from->items[0]->number].out : layer.out;
        layer.u = layer.synapses ? product(json_get(layer.synapses, "out_shape")) : layer.in;
        for (int i = 0; i < layer.count; i++) layer.parts[i] = neurons->items[i];
        for (int i = 0; i < layer.count; i++)
            layer.learns |= is(layer.parts[i], "bias") || is(layer.parts[i], "batch norm");
        for (int i = 0; i < from->count; i++) layer.learns |= layers[(int)from->items[i]->number].learns;
        layer.learns |= layer.synapses != NULL;
        layers[l] = layer;
    }
    return L;
}
