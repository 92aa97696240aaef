/* Backpropagation, feedback alignment, Kolen-Pollack and target propagation in C, by FORMAT.md alone.
 *
 *     ref-bioplaus conformance emit check --case "1/dtp*"
 *     gcc -O2 -o by_hand by_hand.c model.c json.c npz.c -lm
 *     mkdir check/outputs && ./by_hand check
 *     ref-bioplaus conformance judge check
 *
 * All is computed in double, in layout NHWC. Other rules are passed over.
 * Compiled with -DMISTAKE, W stands where B and V should: the judge says where that shows.
 */

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model.h"

static Arrays given, out;
static Layer layers[LAYERS];
static int L, N; /* the last layer; samples */
static const Json *step;
static double *x[LAYERS], *h[LAYERS], *hhat[LAYERS], *act[LAYERS][PARTS + 1]; /* act: u, then behind each part */
#define W_OF(l) array_find(&given, "state/forward/params/%d/W", l)
#ifdef MISTAKE
#define B_OF(l) W_OF(l)
#else
#define B_OF(l) array_find(&given, "state/feedback/params/%d/W", l) /* in target propagation V */
#endif
#define C_OF(l) array_find(&given, "state/feedback/params/%d/local/0/b", l)
#define OWN(l, i, name) array_find(&given, "state/forward/params/%d/local/%d/" name, l, i)

static double *zeros(long n) { return allocate(n * (long)sizeof(double)); }
static double *copied(const double *from, long n) { return memcpy(zeros(n), from, (size_t)n * sizeof(double)); }

/* Where pixel k of window (r, c) of sample n stands among the pixels; -1 for padding. */
static long pixel(const Window *w, long n, long r, long c, long k) {
    long row = r * w->sh + k / w->kw - w->top, col = c * w->sw + k % w->kw - w->left;
    return row < 0 || row >= w->H || col < 0 || col >= w->W ? -1 : (n * w->H + row) * w->W + col;
}

/* Synapses: the three faces of every connectivity are one sum, over samples, windows, pixels and channels.
 * A dense layer is a convolution of one pixel, but for its weights' order O,I. */

typedef enum { APPLY, TRANSPORT, CORRELATE } Face; /* u += W x, x += W u, W += u x */

static void synapses(Face face, int l, double *W, double *from, double *to) {
    const Json *s = layers[l].synapses;
    Window w = window_of(s);
    long K = w.kh * w.kw, O = layers[l].u / (w.height * w.width), at;
    int dense = is(s, "dense"), local = is(s, "local connection");
    for (long n = 0; n < N; n++)
        for (long place = 0; place < w.height * w.width; place++)
            for (long k = 0; k < K; k++) {
                if ((at = pixel(&w, n, place / w.width, place % w.width, k)) < 0) continue;
                for (long a = 0; a < w.C; a++)
                    for (long b = 0; b < O; b++) {
                        double *weight = W + (dense ? b * w.C + a : (((local ? place * K : 0) + k) * w.C + a) * O + b);
                        double *u = to + (n * w.height * w.width + place) * O + b, *v = from + at * w.C + a;
                        if (face == APPLY) *u += *weight * *v;
                        if (face == TRANSPORT) *v += *weight * *u;
                        if (face == CORRELATE) *weight += *u * *v;
                    }
            }
}

/* What neurons do, forward and backward: exact, and local to the layer. */

static double fired(const char *name, double u) {
    if (!strcmp(name, "tanh")) return tanh(u);
    if (!strcmp(name, "relu")) return u > 0 ? u : 0;
    if (!strcmp(name, "sigmoid")) return 0.5 * (tanh(0.5 * u) + 1);
    return u > 0 ? tanh(u) : 0; /* rectified_tanh */
}

static double slope(const char *name, double y) { /* as a function of the output */
    if (!strcmp(name, "tanh")) return 1 - y * y;
    if (!strcmp(name, "relu")) return y > 0;
    if (!strcmp(name, "sigmoid")) return y * (1 - y);
    return y > 0 ? 1 - y * y : 0;
}

static void moments(const double *y, long m, long C, long c, double *mean, double *var) { /* the population's */
    for (long k = *mean = *var = 0; k < m; k++) *mean += y[k * C + c] / (double)m;
    for (long k = 0; k < m; k++) *var += (y[k * C + c] - *mean) * (y[k * C + c] - *mean) / (double)m;
}

static long *largest(const Json *part, const double *y, long *size) { /* the input that each output of a pool takes */
    Window w = window_of(part);
    long at, *found = allocate((*size = N * w.height * w.width * w.C) * (long)sizeof *found);
    for (long o = 0; o < *size; o++) {
        long a = o % w.C, place = o / w.C, c = place % w.width, r = place / w.width % w.height;
        found[o] = -1;
        for (long k = 0; k < w.kh * w.kw; k++) /* padding never wins; of equal ones the first */
            if ((at = pixel(&w, place / w.width / w.height, r, c, k)) >= 0)
                if (found[o] < 0 || y[at * w.C + a] > y[found[o]]) found[o] = at * w.C + a;
    }
    return found;
}

/* Part i of a layer: what arrives -> what leaves; or, given the error dz behind it, the error before it, and the
 * gradients of what it learns are given out. Flatten changes no number, only the shape. */
static double *part(int l, int i, const double *y, const double *dz) {
    const Json *of = layers[l].parts[i];
    long size = N * product(json_get(of, "in_shape")), outputs;
    double *to, mean, var;
    if (is(of, "max pool")) {
        long *from = largest(of, y, &outputs);
        to = zeros(dz ? size : outputs);
        for (long k = 0; k < outputs; k++) to[dz ? from[k] : k] += dz ? dz[k] : y[from[k]];
        return to;
    }
    if (is(of, "global average pool")) {
        long C = layers[l].out, m = size / N / C;
        to = zeros(dz ? size : N * C);
        for (long k = 0, o; k < size; k++) {
            o = k / m / C * C + k % C;
            to[dz ? k : o] += (dz ? dz[o] : y[k]) / m;
        }
        return to;
    }
    to = copied(dz ? dz : y, size);
    if (is(of, "bias")) {
        Array *b = OWN(l, i, "b");
        double *sum = dz ? array_add(&out, zeros(b->size), b, "info/grads/%d/local/%d/b", l, i)->v : NULL;
        for (long k = 0; k < size; k++) *(dz ? sum + k % b->size : to + k) += dz ? dz[k] / N : b->v[k % b->size];
    } else if (is(of, "nonlinearity")) {
        const char *name = json_text(of, "name");
        for (long k = 0; k < size; k++) to[k] = dz ? dz[k] * slope(name, fired(name, y[k])) : fired(name, y[k]);
    } else if (is(of, "dropout")) {
        double *mask = array_find(&given, "random/dropout/%d/%d", l, i)->v;
        for (long k = 0; k < size; k++) to[k] *= mask[k] / (1 - json_number(of, "probability"));
    } else if (is(of, "batch norm")) {
        Array *gamma = OWN(l, i, "gamma"), *beta = OWN(l, i, "beta"), learned[4];
        const char *names[] = {"info/grads/%d/local/%d/gamma", "info/grads/%d/local/%d/beta", "state/stats/%d/%d/mean",
                               "state/stats/%d/%d/var"};
        for (int g = 0; dz && g < 4; g++) { /* the gradients from 0, the statistics from what they are */
            double *old = g < 2 ? zeros(gamma->size) : array_find(&given, names[g], l, i)->v;
            learned[g] = *array_add(&out, old, gamma, names[g], l, i);
        }
        for (long c = 0, C = gamma->size, m = size / C; c < C; c++) {
            moments(y, m, C, c, &mean, &var);
            double root = sqrt(var + json_number(of, "epsilon")), sum = 0, product_sum = 0;
            for (long k = c; k < size; k += C)
                if (!dz) to[k] = gamma->v[c] * (y[k] - mean) / root + beta->v[c];
                else sum += dz[k], product_sum += dz[k] * (y[k] - mean) / root;
            if (!dz) continue;
            for (long k = c; k < size; k += C)
                to[k] = gamma->v[c] / root * (dz[k] - sum / m - (y[k] - mean) / root * product_sum / m);
            learned[0].v[c] = product_sum / N, learned[1].v[c] = sum / N;
            var *= m > 1 ? m / (m - 1.0) : 1; /* the running one is the unbiased one */
            learned[2].v[c] += json_number(of, "rate") * (mean - learned[2].v[c]);
            learned[3].v[c] += json_number(of, "rate") * (var - learned[3].v[c]);
        }
    } else if (!is(of, "flatten")) {
        stop("Neurons of kind \"%s\" are not written here: emit other cases.", json_text(of, "kind"));
    }
    return to;
}

static double *layer_forward(int l, double *from, double **kept) {
    kept[0] = from;
    if (layers[l].synapses) synapses(APPLY, l, W_OF(l)->v, from, kept[0] = zeros(N * layers[l].u));
    for (int i = 0; i < layers[l].count; i++) kept[i + 1] = part(l, i, kept[i], NULL);
    return kept[layers[l].count];
}

static double *layer_backward(int l, const double *error) { /* the error at h_l -> delta_l, at u_l */
    double *delta = copied(error, N * layers[l].out);
    for (int i = layers[l].count; i-- > 0;) delta = part(l, i, act[l][i], delta);
    return delta;
}

static void give_weights(const char *what, int l, const Array *like, double *from, double *to) { /* mean of u x */
    double *dW = array_add(&out, zeros(like->size), like, "info/%s/%d/W", what, l)->v;
    synapses(CORRELATE, l, dW, from, to);
    for (long k = 0; k < like->size; k++) dW[k] /= N;
}

static double *softmax(const double *u, long classes) {
    double *found = zeros(N * classes);
    for (long n = 0; n < N; n++, u += classes) {
        double most = u[0], sum = 0;
        for (long c = 1; c < classes; c++) most = fmax(most, u[c]);
        for (long c = 0; c < classes; c++) sum += found[n * classes + c] = exp(u[c] - most);
        for (long c = 0; c < classes; c++) found[n * classes + c] /= sum;
    }
    return found;
}

/* Target propagation's inverses: the synapses of layer l read backwards, a bias, the neurons that h_(l-1) is of. */

static const char *inverse_neurons(int l) { /* the last nonlinearity behind the synapses below; NULL for none */
    const char *found = NULL;
    int first = l - 1;
    while (first > 0 && !layers[first].synapses) first--;
    for (int k = first; k < l; k++)
        for (int i = 0; i < layers[k].count; i++)
            if (is(layers[k].parts[i], "nonlinearity")) found = json_text(layers[k].parts[i], "name");
    return found;
}

static double *inverse(int l, double *from) {
    const char *name = inverse_neurons(l);
    double *y = zeros(N * layers[l].in), *c = C_OF(l)->v;
    synapses(TRANSPORT, l, B_OF(l)->v, y, from);
    for (long k = 0; k < N * layers[l].in; k++) {
        y[k] += c[k % C_OF(l)->size];
        if (name) y[k] = fired(name, y[k]);
    }
    return y;
}

static int output_of(int l) { /* l, or the last layer without synapses behind it */
    while (l < L && !layers[l + 1].synapses) l++;
    return l;
}

static void find_targets(const char *rule, double alpha, double *y, const double *error) {
    int top = L;
    if (!strcmp(rule, "dtp")) { /* a step of alpha down the loss, at h_(L-1) */
        hhat[top = L - 1] = zeros(N * layers[L].in);
        synapses(TRANSPORT, L, W_OF(L)->v, hhat[L - 1], layer_backward(L, error));
        for (long k = 0; k < N * layers[L].in; k++) hhat[L - 1][k] = h[L - 1][k] - alpha * hhat[L - 1][k];
        out.count = 0; /* the walk back gives the same gradients of layer L again */
    } else {
        hhat[L] = y;
    }
    for (int l = top; l > 1; l--) {
        if (!layers[l].synapses) continue;
        hhat[l - 1] = inverse(l, hhat[output_of(l)]);
        if (!strcmp(rule, "tp")) continue;
        double *plain = inverse(l, h[output_of(l)]);
        for (long k = 0; k < N * layers[l].in; k++) hhat[l - 1][k] += h[l - 1][k] - plain[k];
    }
}

static void learn_inverses(double noise, int preserving) {
    for (int l = 2; l <= L; l++) {
        Array *V = B_OF(l), *c = C_OF(l);
        if (!layers[l].synapses || !c) continue;
        const char *name = inverse_neurons(l);
        long size = N * layers[l].in;
        double *corrupted = copied(h[l - 1], size), *above = corrupted, *kept[PARTS + 1];
        for (long k = 0; k < size; k++) corrupted[k] += noise * array_find(&given, "random/corruption/%d", l)->v[k];
        for (int k = l; k <= output_of(l); k++) above = layer_forward(k, above, kept);
        if (l == L) above = softmax(above, layers[L].out);
        double *delta = inverse(l, above);
        double *sum = array_add(&out, zeros(c->size), c, "info/feedback_grads/%d/local/0/b", l)->v;
        for (long k = 0; k < size; k++) { /* down ||g - r||^2, through the neurons of the inverse */
            double error = 2 * (delta[k] - (preserving ? corrupted : h[l - 1])[k]);
            delta[k] = error * (name ? slope(name, delta[k]) : 1);
            sum[k % c->size] += delta[k] / N;
        }
        give_weights("feedback_grads", l, V, delta, above);
    }
}

/* The walk back: what the synapses of layer l deliver is the only question that rules answer differently. */

static void walk_back(const char *rule, const double *error) {
    double *at_h[LAYERS] = {0};
    int targets = strstr(rule, "tp") != NULL;
    at_h[L] = copied(error, N * layers[L].out);
    for (int l = L; l > 0; l--) {
        if (!layers[l].learns) continue;
        double *delta = layer_backward(l, at_h[l]), *below = delta;
        const Json *from = json_get(layers[l].row, "inputs");
        const Json *shape = layers[l].count ? json_get(layers[l].parts[0], "in_shape") : NULL;
        Array like = shaped(N, shape ? shape : json_get(layers[l].row, "out_shape")), *W = W_OF(l), *B = B_OF(l);
        array_add(&out, delta, &like, "info/delta/%d", l);
        if (W) {
            give_weights("grads", l, W, x[l], delta);
            int fed_back = layers[(int)from->items[0]->number].learns; /* whether there is a B_l */
            if (fed_back && !strcmp(rule, "kolen-pollack")) give_weights("feedback_grads", l, W, x[l], delta);
            below = zeros(N * layers[l].in);
            if (!targets) synapses(TRANSPORT, l, (B ? B : W)->v, below, delta); /* B stands where W would */
            for (long k = 0; targets && hhat[l - 1] && k < N * layers[l].in; k++)
                below[k] = 2 * (h[l - 1][k] - hhat[l - 1][k]);
        }
        for (int i = 0; i < from->count; i++) {
            int k = (int)from->items[i]->number;
            at_h[k] = at_h[k] ? at_h[k] : zeros(N * layers[k].out);
            for (long n = 0; n < N * layers[k].out; n++) at_h[k][n] += below[n];
        }
    }
}

/* The optimizer of a path: of every parameter, whose gradient is among the outputs by now. */
static void update(const char *path, const char *grads, const Json *o) {
    Array *count = array_find(&given, "state/%s/memory/count", path);
    const Json *schedule = json_get(o, "eta"), *boundaries = json_get(schedule, "boundaries");
    const char *form = json_get(o, "form") ? json_text(o, "form") : "";
    int adam = !strcmp(json_text(o, "name"), "adam"), rmsprop = !strcmp(json_text(o, "name"), "rmsprop"), now = 0;
    while (boundaries && now < boundaries->count && *count->v >= boundaries->items[now]->number) now++;
    double t = *count->v + 1, eta = boundaries ? json_item(schedule, "values", now) : schedule->number;
    double decay = json_get(o, "decay") ? json_number(o, "decay") : 0;
    double momentum = json_get(o, "momentum") ? json_number(o, "momentum") : 0, b1, b2, epsilon;
    array_add(&out, &t, count, "%s", count->name);
    for (int a = 0; a < given.count; a++) {
        char prefix[64];
        int start = snprintf(prefix, sizeof prefix, "state/%s/params/", path);
        if (strncmp(given.arrays[a].name, prefix, (size_t)start)) continue;
        const char *name = given.arrays[a].name + start, *own = name + strlen(name) - 2;
        double *p = array_add(&out, given.arrays[a].v, &given.arrays[a], "%s", given.arrays[a].name)->v;
        double *slots[128] = {0}, *m, *v; /* the optimizer's memory of this parameter, by the slots' letters */
        for (const char *slot = "mvna"; *slot; slot++) {
            Array *old = array_find(&given, "state/%s/memory/%c/%s", path, *slot, name);
            if (old) slots[(int)*slot] = array_add(&out, old->v, old, "%s", old->name)->v;
        }
        m = slots['m'], v = slots['v'];
        int decays = decay > 0 && (!strcmp(json_text(o, "on"), "all") || !strcmp(own, "/W"));
        for (long k = 0; k < given.arrays[a].size; k++) {
            double g = array_find(&out, "info/%s/%s", grads, name)->v[k], keep = 1, move;
            if (decays && !strcmp(form, "paper")) keep = 1 - decay;
            if (decays && !strcmp(form, "decoupled")) keep = 1 - eta * decay;
            if (decays && !strcmp(form, "coupled")) g += decay * p[k];
            move = g;
            if (adam) {
                b1 = json_number(o, "b1"), b2 = json_number(o, "b2"), epsilon = json_number(o, "epsilon");
                double c1 = -expm1(t * log(b1)), c2 = -expm1(t * log(b2)); /* 1 - b^t */
                m[k] = b1 * m[k] + (1 - b1) * g, v[k] = b2 * v[k] + (1 - b2) * g * g;
                move = m[k] / c1 / (sqrt(v[k] / c2) + epsilon);
                if (!strcmp(json_text(o, "epsilon_form"), "hat")) move = sqrt(c2) / c1 * m[k] / (sqrt(v[k]) + epsilon);
            } else if (rmsprop) {
                double rho = json_number(o, "rho"), *n = slots['n'] + k, *mean = slots['a'] + k;
                *n = rho * *n + (1 - rho) * g * g, *mean = rho * *mean + (1 - rho) * g;
                v[k] = momentum * v[k] + eta * g / sqrt(*n - *mean * *mean + json_number(o, "epsilon"));
                move = v[k] / eta;
            } else if (v) {
                v[k] = momentum * v[k] + g;
                move = json_number(o, "nesterov") ? g + momentum * v[k] : v[k];
            }
            p[k] = keep * p[k] - eta * move;
        }
    }
}

static void compute(const char *rule, const char *mode) {
    const Json *options = json_get(json_get(step, "algorithm"), "options");
    int targets = strstr(rule, "tp") != NULL, weights = !targets || strcmp(mode, "inverse");
    int inverses = targets && strcmp(mode, "forward");
    long classes = layers[L].out;
    double *y = array_find(&given, "batch/y")->v, *loss = zeros(N), t = *array_find(&given, "state/t")->v + 1;
    memset(hhat, 0, sizeof hhat);
    x[0] = h[0] = array_find(&given, "batch/x")->v;
    for (int l = 1; l <= L; l++) {
        const Json *from = json_get(layers[l].row, "inputs");
        x[l] = zeros(N * layers[l].in);
        for (int i = 0; i < from->count; i++)
            for (long k = 0; k < N * layers[l].in; k++) x[l][k] += h[(int)from->items[i]->number][k];
        h[l] = layer_forward(l, x[l], act[l]);
    }
    double *u = h[L], *p = softmax(u, classes), *error = copied(p, N * classes);
    for (long k = 0; k < N * classes; k++) error[k] -= y[k], loss[k / classes] -= y[k] > 0 ? y[k] * log(p[k]) : 0;
    if (targets) h[L] = p;
    if (weights && targets) find_targets(rule, strcmp(rule, "dtp") ? 0 : json_number(options, "alpha"), y, error);
    if (weights) walk_back(rule, error), update("forward", "grads", json_get(step, "optimizer"));
    if (inverses) {
        learn_inverses(json_number(options, "noise"), !strcmp(rule, "dtp"));
        update("feedback", "feedback_grads", json_get(step, "inverse_optimizer"));
    } else if (!strcmp(rule, "kolen-pollack")) update("feedback", "feedback_grads", json_get(step, "optimizer"));
    Array one = shaped(0, NULL), row = shaped(N, NULL), like;
    array_add(&out, &t, &one, "state/t");
    h[L] = u;
    for (int l = 0; l <= L; l++) {
        like = shaped(N, json_get(layers[l].row, "out_shape"));
        array_add(&out, h[l], &like, "info/h/%d", l);
        if (hhat[l]) array_add(&out, hhat[l], &like, "info/targets/%d", l);
    }
    if (weights) array_add(&out, loss, &row, "info/loss"), array_add(&out, p, &like, "info/output");
}

int main(int count, char **words) {
    static const char *rules[] = {"backprop", "feedback-alignment", "kolen-pollack", "tp", "dtp", "sdtp"};
    char path[4096], rule[64];
    if (count != 2) stop("Say which folder `ref-bioplaus conformance emit` wrote.");
    snprintf(path, sizeof path, "%s/manifest.json", words[1]);
    const Json *manifest = json_read(path), *cases = json_get(manifest, "cases");
    if (strcmp(json_text(manifest, "layout"), "NHWC")) stop("Only layout NHWC is written here: emit again.");
    for (int i = 0; i < cases->count; i++) {
        int known = 0;
        step = cases->items[i];
        if (strcmp(json_text(step, "kind"), "step")) continue;
        snprintf(rule, sizeof rule, "%s", json_text(json_get(step, "algorithm"), "name"));
        if (strstr(rule, "-alternating")) *strstr(rule, "-alternating") = 0;
        for (int k = 0; k < 6; k++) known |= !strcmp(rule, rules[k]);
        if (!known) continue;
        L = read_model(json_get(json_get(manifest, "models"), json_text(step, "model")), layers);
        N = (int)json_number(step, "batch");
        snprintf(path, sizeof path, "%s/inputs/%s", words[1], json_text(step, "file"));
        npz_read(path, &given);
        out.count = 0;
        compute(rule, json_text(step, "mode"));
        snprintf(path, sizeof path, "%s/outputs/%s", words[1], json_text(step, "file"));
        npz_write(path, &out, json_text(step, "case_sha256"));
        printf("%s\n", json_text(step, "id"));
    }
    return 0;
}
