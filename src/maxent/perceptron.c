// Multilayer perceptrons on a CPU, forward and backward, of many networks at once; called by XLA. See perceptron.py.
//
// All of it is one product, C = A B, by columns: a panel of B is copied to lie close together, and every tile of C is
// summed in registers. A panel of one network is a task. Tasks are handed out one at a time to threads of our own, so
// the number of threads changes who computes a number and never its bits.

#include <fenv.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "xla/ffi/api/c_api.h"

#if defined(__AVX512F__)
enum { LANES = 16, ROWS = 8 };
#elif defined(__AVX__)
enum { LANES = 8, ROWS = 6 };
#else
enum { LANES = 4, ROWS = 8 };
#endif
enum { PANEL = 2 * LANES };

typedef float vec __attribute__((vector_size(LANES * 4), aligned(4)));
typedef int32_t bits __attribute__((vector_size(LANES * 4), aligned(4)));

// ---- Threads ------------------------------------------------------------------------------------------------------

enum { MOST_TASKS = 1 << 19, AWAKE_NANOSECONDS = 30000, MOST_NANOSECONDS = 1000000 };

static struct {
  pthread_mutex_t busy, sleep;
  pthread_cond_t woken;
  atomic_int sleepers, done;
  // Which job it is (24 bits), how many tasks it has (20), the next of them (20): taken together, so that a helper that
  // comes late cannot take a task of another job.
  atomic_uint_fast64_t ticket;
  void (*run)(const void *job, int task);
  const void *job;
  fenv_t environment;  // of the thread whose job it is: XLA takes denormal numbers for 0
  int helpers;
} pool = {.busy = PTHREAD_MUTEX_INITIALIZER, .sleep = PTHREAD_MUTEX_INITIALIZER, .woken = PTHREAD_COND_INITIALIZER};

static uint64_t job_number(void) { return atomic_load(&pool.ticket) >> 40; }

static int64_t nanoseconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void pause_briefly(void) {
#if defined(__x86_64__)
  for (int i = 0; i < 16; i++) __builtin_ia32_pause();
#endif
}

static void take_tasks(int helper) {
  for (int first = 1;; first = 0) {
    uint64_t ticket = atomic_fetch_add(&pool.ticket, 1);
    int next = ticket & 0xfffff, tasks = (ticket >> 20) & 0xfffff;
    if (next >= tasks) return;
    if (helper && first) fesetenv(&pool.environment);
    pool.run(pool.job, next);
    atomic_fetch_add(&pool.done, 1);
  }
}

// Between two products of an update a helper stays awake, since to wake it takes longer than a small product. Those of
// wide networks lie farther apart, so how long it waits follows from how long it has worked. It leaves its core to
// whatever else wants it meanwhile: a thread that steps environments, above all.
static void *help(void *unused) {
  (void)unused;
  for (uint64_t seen = 0;; seen = job_number()) {
    int64_t begun = nanoseconds();
    take_tasks(1);
    int64_t now = nanoseconds(), worked = now - begun;
    int64_t end = now + (worked < MOST_NANOSECONDS ? worked : MOST_NANOSECONDS) + AWAKE_NANOSECONDS;
    for (; job_number() == seen && now < end; now = nanoseconds()) sched_yield();
    if (job_number() != seen) continue;
    pthread_mutex_lock(&pool.sleep);
    atomic_fetch_add(&pool.sleepers, 1);
    while (job_number() == seen) pthread_cond_wait(&pool.woken, &pool.sleep);
    atomic_fetch_sub(&pool.sleepers, 1);
    pthread_mutex_unlock(&pool.sleep);
  }
  return NULL;
}

// So many threads in all, the caller's own included. To be called once.
void maxent_start(int threads) {
  for (; pool.helpers < threads - 1; pool.helpers++) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, help, NULL)) return;
    pthread_detach(thread);
  }
}

// Runs all tasks of a job, the caller's thread among those that do; alone where the helpers have another job, as with
// several devices.
static void in_parallel(void (*run)(const void *, int), const void *job, int tasks) {
  if (tasks < 2 || tasks > MOST_TASKS || !pool.helpers || pthread_mutex_trylock(&pool.busy)) {
    for (int i = 0; i < tasks; i++) run(job, i);
    return;
  }
  pool.run = run;
  pool.job = job;
  fegetenv(&pool.environment);
  atomic_store(&pool.done, 0);
  atomic_store(&pool.ticket, (job_number() + 1) << 40 | (uint64_t)tasks << 20);
  if (atomic_load(&pool.sleepers)) {
    pthread_mutex_lock(&pool.sleep);
    pthread_cond_broadcast(&pool.woken);
    pthread_mutex_unlock(&pool.sleep);
  }
  take_tasks(0);
  for (int waits = 0; atomic_load(&pool.done) < tasks; waits++)
    if (waits < 64) pause_briefly();
    else sched_yield();  // somebody else has the helper's core
  pthread_mutex_unlock(&pool.busy);
}

// ---- One product --------------------------------------------------------------------------------------------------

// C [m, n] = f(A [m, k] B [k, n] + bias), where element (i, j) of A lies at a[i * a_row + j * a_column], B's likewise.
typedef struct {
  int m, n, k;
  const float *a;
  long a_row, a_column;
  const float *b;
  long b_row, b_column;
  float *c;
  const float *bias;  // [n] or NULL
  int relu;           // negative entries become 0
  const float *mask;  // [m, n] or NULL: where it is not positive, C becomes 0
  const int *rows;    // the m rows of A, C and mask that are meant, or NULL for the first m
} product;

#define VEC(p) (*(const vec *)(p))

static inline vec get(const float *from, int count) {
  if (count == LANES) return VEC(from);
  vec x = {*from};
  if (count == 1) return x;
  memcpy(&x, from, count * sizeof(float));
  return x;
}

static inline void put(float *to, vec x, int count) {
  if (count == LANES) *(vec *)to = x;
  else if (count == 1) *to = x[0];
  else memcpy(to, &x, count * sizeof(float));
}

static inline void finish(const product *p, vec y, int column, long row) {
  const int left = p->n - column, count = left < LANES ? left : LANES;
  if (p->bias) y += get(p->bias + column, count);
  if (p->relu) y = (vec)((bits)y & ~(y < 0));
  if (p->mask) y = (vec)((bits)y & (get(p->mask + row + column, count) > 0));
  put(p->c + row + column, y, count);
}

static inline __attribute__((always_inline)) void tile(
    const product *p, const int rows, const int vecs, const float *restrict panel, long stride, int row, int column) {
  const long step = p->a_column;
  const float *a = p->a, *b = panel, *end = panel + p->k * stride;
  long from[ROWS];
  for (int r = 0; r < rows; r++) from[r] = (p->rows ? p->rows[row + r] : row + r) * p->a_row;
  vec sum[ROWS][2];
  for (int r = 0; r < rows; r++)
    for (int v = 0; v < vecs; v++) sum[r][v] = (vec){0};
  for (; b != end; b += stride, a += step)
    for (int r = 0; r < rows; r++)
      for (int v = 0; v < vecs; v++) sum[r][v] += a[from[r]] * VEC(b + v * LANES);
  vec all[ROWS][2];  // apart from the sums, which are to stay in registers until here
  for (int r = 0; r < rows; r++)
    for (int v = 0; v < vecs; v++) all[r][v] = sum[r][v];
  for (int r = 0; r < rows; r++) {
    const long to = (long)(p->rows ? p->rows[row + r] : row + r) * p->n;
    for (int v = 0; v < vecs; v++) finish(p, all[r][v], column + v * LANES, to);
  }
}

static inline __attribute__((always_inline)) void tiles(
    const product *p, const int vecs, const float *panel, long stride, int column) {
  int row = 0;
  for (; row + ROWS <= p->m; row += ROWS) tile(p, ROWS, vecs, panel, stride, row, column);
  for (; row + 2 <= p->m; row += 2) tile(p, 2, vecs, panel, stride, row, column);
  for (; row < p->m; row++) tile(p, 1, vecs, panel, stride, row, column);
}

// The panel's columns close together, filled up with zeros to whole vectors.
static void copy_panel(const product *p, int column, int columns, int width, float *panel) {
  enum { BLOCK = 16 };
  for (int first = 0; first < p->k; first += BLOCK) {
    const int end = first + BLOCK < p->k ? first + BLOCK : p->k;
    if (p->b_column == 1)
      for (int i = first; i < end; i++)
        for (int j = 0; j < width; j += LANES) {
          const int left = columns - j < LANES ? columns - j : LANES;
          put(panel + (long)i * width + j, get(p->b + i * p->b_row + column + j, left), LANES);
        }
    else
      for (int j = 0; j < width; j++) {
        const float *b = p->b + (column + j) * p->b_column;
        for (int i = first; i < end; i++) panel[(long)i * width + j] = j < columns ? b[i * p->b_row] : 0;
      }
  }
}

// A single column, as critics have: sums along the rows of A, where a tile would be mostly empty.
static void multiply_column(const product *p) {
  for (int first = 0; first < p->m; first += ROWS) {
    const int rows = p->m - first < ROWS ? p->m - first : ROWS;
    const float *a[ROWS];
    for (int r = 0; r < ROWS; r++) {
      const int row = first + (r < rows ? r : 0);
      a[r] = p->a + (p->rows ? p->rows[row] : row) * p->a_row;
    }
    vec sum[ROWS] = {{0}};
    int i = 0;
    for (; i + LANES <= p->k; i += LANES)
      for (int r = 0; r < ROWS; r++) sum[r] += VEC(a[r] + i) * VEC(p->b + i);
    for (int r = 0; i < p->k && r < ROWS; r++) sum[r] += get(a[r] + i, p->k - i) * get(p->b + i, p->k - i);
    for (int r = 0; r < rows; r++) {
      vec total = {0};
      for (int j = 0; j < LANES; j++) total[0] += sum[r][j];
      finish(p, total, 0, p->rows ? p->rows[first + r] : first + r);
    }
  }
}

static float *scratch(size_t floats) {
  static _Thread_local float *memory;
  static _Thread_local size_t size;
  size_t needed = (floats * sizeof(float) + 4095) / 4096 * 4096;
  if (needed > size) {
    free(memory);
    memory = aligned_alloc(4096, size = needed);
    if (!memory) abort();
  }
  return memory;
}

static void multiply_panel(const product *p, int column) {
  if (p->n == 1 && p->a_column == 1 && p->b_row == 1) {
    multiply_column(p);
    return;
  }
  int columns = p->n - column < PANEL ? p->n - column : PANEL, vecs = columns > LANES ? 2 : 1, width = vecs * LANES;
  const float *panel = p->b + column;
  long stride = p->b_row;
  if (p->b_column != 1 || columns < width || p->m > ROWS) {  // not worth a copy where it is read once
    float *copy = scratch((size_t)p->k * width);
    copy_panel(p, column, columns, width, copy);
    panel = copy;
    stride = width;
  }
  if (vecs == 2) tiles(p, 2, panel, stride, column);
  else tiles(p, 1, panel, stride, column);
}

// ---- Products of many networks -------------------------------------------------------------------------------------

enum { SHARED = 1 << 17, WIDE = 1 << 23 };  // multiplications from which on it pays to share them; a wide network's

// Some products of each of several networks: products[i * networks + e] is the i-th of network e. `step` is which of
// them is computed; if all are, a network's may need those before.
typedef struct {
  const product *products;
  int count, networks, step, panels;
} list;

static int panels_of(const product *p) { return (p->n + PANEL - 1) / PANEL; }

static void panel_task(const void *job, int task) {
  const list *l = job;
  multiply_panel(&l->products[l->step * l->networks + task / l->panels], task % l->panels * PANEL);
}

static void network_task(const void *job, int network) {
  const list *l = job;
  for (int i = 0; i < l->count; i++) {
    const product *p = &l->products[i * l->networks + network];
    for (int panel = 0; panel < panels_of(p); panel++) multiply_panel(p, panel * PANEL);
  }
}

static void multiply(const product *products, int count, int networks) {
  list l = {.products = products, .count = count, .networks = networks};
  const int threads = pool.helpers + 1;
  int64_t each = 0;
  for (int i = 0; i < count; i++) {
    const product *p = &products[i * networks];
    each += (int64_t)p->m * p->n * p->k;
  }
  if (each * networks < SHARED)
    for (int e = 0; e < networks; e++) network_task(&l, e);
  // A narrow network's layers stay in the cache of the thread that has it.
  else if (each < WIDE && (networks % threads == 0 || networks >= 4 * threads))
    in_parallel(network_task, &l, networks);
  else
    for (l.step = 0; l.step < count; l.step++) {
      l.panels = panels_of(&products[l.step * networks]);
      in_parallel(panel_task, &l, l.panels * networks);
    }
}

// ---- What XLA calls ------------------------------------------------------------------------------------------------

typedef XLA_FFI_CallFrame frame;
typedef XLA_FFI_Buffer buffer;

static buffer *argument(frame *f, int i) { return f->args.args[i]; }
static buffer *result(frame *f, int i) { return f->rets.rets[i]; }
static int columns_of(const buffer *x) { return (int)x->dims[x->rank - 1]; }
static int rows_of(const buffer *x) { return (int)x->dims[x->rank - 2]; }

// Whether XLA only asks which version of its interface this was compiled for; it is told.
static int asks_version(frame *f) {
  XLA_FFI_Extension_Base *extension = f->extension_start;
  if (!extension || extension->type != XLA_FFI_Extension_Metadata) return 0;
  XLA_FFI_Metadata *about = ((XLA_FFI_Metadata_Extension *)extension)->metadata;
  about->api_version.major_version = XLA_FFI_API_MAJOR;
  about->api_version.minor_version = XLA_FFI_API_MINOR;
  return 1;
}

// Leading axes count networks. An axis of an argument is 1 where all of them share it; `like` has them whole.
static int networks(const buffer *like) {
  long count = 1;
  for (int i = 0; i < like->rank - 2; i++) count *= like->dims[i];
  return (int)count;
}

// The matrix (own = 2) or vector (own = 1) of one network.
static float *part(const buffer *x, int own, const buffer *like, int network) {
  long at = 0, step = 1;
  for (int i = 1; i <= own; i++) step *= x->dims[x->rank - i];
  for (int i = (int)like->rank - 3; i >= 0; i--) {
    int index = network % like->dims[i];
    network /= like->dims[i];
    if (x->dims[i] != 1) at += index * step;
    step *= x->dims[i];
  }
  return (float *)x->data + at;
}

static product *products_of(int count) {
  product *products = calloc(count, sizeof(product));
  if (!products) abort();
  return products;
}

// x, W_1, b_1, …, W_L, b_L → y, h_1, …, h_L-1:  h_l = max(0, h_l-1 W_l + b_l) with h_0 = x,  y = h_L-1 W_L + b_L.
XLA_FFI_Error *maxent_forward(frame *f) {
  if (asks_version(f)) return NULL;
  int depth = (int)f->rets.size;
  buffer *y = result(f, 0);
  int count = networks(y);
  product *products = products_of(depth * count);
  for (int l = 0; l < depth; l++) {
    int last = l == depth - 1;
    buffer *from = l ? result(f, l) : argument(f, 0), *to = last ? y : result(f, l + 1);
    buffer *weight = argument(f, 1 + 2 * l), *bias = argument(f, 2 + 2 * l);
    for (int e = 0; e < count; e++)
      products[l * count + e] = (product){
          .m = rows_of(y), .n = columns_of(weight), .k = rows_of(weight),
          .a = part(from, 2, y, e), .a_row = columns_of(from), .a_column = 1,
          .b = part(weight, 2, y, e), .b_row = columns_of(weight), .b_column = 1,
          .c = part(to, 2, y, e), .bias = part(bias, 1, y, e), .relu = !last};
  }
  multiply(products, depth, count);
  free(products);
  return NULL;
}

// Which rows have any entry that is not 0: a loss with the smaller of two critics has none in half of each one's rows.
static int rows_used(const float *x, int rows, int columns, int *used) {
  int count = 0;
  for (int i = 0; i < rows; i++) {
    int any = 0;
    for (int j = 0; j < columns; j++) any |= x[(long)i * columns + j] != 0;
    if (any) used[count++] = i;
  }
  return count;
}

// g, W_1, …, W_n[, h_1, …, h_n] → g_1, …, g_n:  g_l = g_l+1 W_lᵀ with g_n+1 = g;  with h_l given, 0 unless h_l > 0.
XLA_FFI_Error *maxent_backward(frame *f) {
  if (asks_version(f)) return NULL;
  int depth = (int)f->rets.size, masked = f->args.size > 1 + depth;
  buffer *like = result(f, 0), *gradient = argument(f, 0);
  int count = networks(like), rows = rows_of(like);
  product *products = products_of(depth * count), *next = products;
  int *used = malloc((size_t)count * rows * sizeof(int)), *found = malloc(count * sizeof(int));
  if (!used || !found) abort();
  for (int e = 0; e < count; e++)
    found[e] = rows_used(part(gradient, 2, like, e), rows, columns_of(gradient), used + (long)e * rows);
  for (int l = depth - 1; l >= 0; l--) {
    buffer *from = l == depth - 1 ? gradient : result(f, l + 1), *to = result(f, l);
    buffer *weight = argument(f, 1 + l), *hidden = masked ? argument(f, 1 + depth + l) : NULL;
    for (int e = 0; e < count; e++) {
      *next = (product){
          .m = found[e], .n = rows_of(weight), .k = columns_of(weight), .rows = used + (long)e * rows,
          .a = part(from, 2, like, e), .a_row = columns_of(from), .a_column = 1,
          .b = part(weight, 2, like, e), .b_row = 1, .b_column = columns_of(weight),
          .c = part(to, 2, like, e), .mask = hidden ? part(hidden, 2, like, e) : NULL};
      if (found[e] < rows) memset(next->c, 0, (size_t)rows * next->n * sizeof(float));
      next++;
    }
  }
  multiply(products, depth, count);
  free(products);
  free(used);
  free(found);
  return NULL;
}

// h_0, …, h_L-1, g_1, …, g_L → dW_1, db_1, …, dW_L, db_L:  dW_l = h_l-1ᵀ g_l,  db_l = Σ_batch g_l.
XLA_FFI_Error *maxent_gradients(frame *f) {
  static const float one = 1;
  if (asks_version(f)) return NULL;
  int depth = (int)f->args.size / 2;
  buffer *like = result(f, 0);
  int count = networks(like);
  product *products = products_of(2 * depth * count), *next = products;
  for (int l = 0; l < depth; l++) {
    buffer *hidden = argument(f, l), *gradient = argument(f, depth + l);
    int inputs = columns_of(hidden), outputs = columns_of(gradient), batch = rows_of(gradient);
    for (int e = 0; e < count; e++, next++) {
      const float *h = part(hidden, 2, like, e), *g = part(gradient, 2, like, e);
      float *weight = part(result(f, 2 * l), 2, like, e), *bias = part(result(f, 2 * l + 1), 1, like, e);
      // One column is as well a row, which needs no tile that is mostly empty.
      next[0] = outputs == 1
        ? (product){.m = 1, .n = inputs, .k = batch, .a = g, .a_column = 1,
                    .b = h, .b_row = inputs, .b_column = 1, .c = weight}
        : (product){.m = inputs, .n = outputs, .k = batch, .a = h, .a_row = 1, .a_column = inputs,
                    .b = g, .b_row = outputs, .b_column = 1, .c = weight};
      next[count] = (product){.m = 1, .n = outputs, .k = batch, .a = &one,
                              .b = g, .b_row = outputs, .b_column = 1, .c = bias};
    }
    next += count;
  }
  multiply(products, 2 * depth, count);
  free(products);
  return NULL;
}
