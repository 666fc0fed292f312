// What an update spends its time on, on a CPU, of many networks at once: multilayer perceptrons, forward and backward,
// and Adam; and, at the end, where a program meets Python. Called by XLA. See native.py.
//
// Perceptrons are one product, C = A B: panels of B's columns are copied to lie close together, and every tile of C is
// summed in registers. Rows of a batch need nothing of each other, so a task is a block of rows of one network through
// all its layers; of the weights' gradients, which are sums over the rows, it is a panel; of Adam, some numbers. Tasks are
// handed out one at a time to threads of our own, so the number of threads changes who computes a number and never its
// bits.

#include <fenv.h>
#include <math.h>
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

// ---- Memory of a thread's own, which it keeps until it ends --------------------------------------------------------

// For a panel, for those of all products, for what lies between two, and for the gradients of hidden layers.
enum { PANEL_COPY, PANEL_COPIES, HIDDEN, GRADIENTS, KINDS };

typedef struct {
  float *start[KINDS];
  size_t size[KINDS];
} memories;

static pthread_key_t ending;

static void release(void *own) {
  memories *m = own;
  for (int kind = 0; kind < KINDS; kind++) free(m->start[kind]);
  free(m);
}

static float *floats(size_t count) {
  float *start = aligned_alloc(64, (count * sizeof(float) + 64) / 64 * 64);
  if (!start) abort();
  return start;
}

static float *memory(int kind, size_t count) {
  static _Thread_local memories *own;
  if (!own && (!(own = calloc(1, sizeof(memories))) || pthread_setspecific(ending, own))) abort();
  if (count > own->size[kind]) {
    free(own->start[kind]);
    own->start[kind] = floats(own->size[kind] = count);
  }
  return own->start[kind];
}

// ---- Threads ------------------------------------------------------------------------------------------------------

enum { MOST_TASKS = 1 << 19, MOST_SHARES = 64, AWAKE_NANOSECONDS = 30000, MOST_NANOSECONDS = 1000000 };

static struct {
  pthread_mutex_t busy, sleep;
  pthread_cond_t woken;
  atomic_int sleepers, done;
  // Of each thread's share of the tasks: which job it is (24 bits), where the share ends (20), the next task (20). They
  // are taken together: a helper that comes late finds either no task, or one of the next job, with all that belongs to it.
  struct { _Alignas(64) atomic_uint_fast64_t ticket; } shares[MOST_SHARES];
  void (*run)(const void *job, int task);
  const void *job;
  fenv_t environment;  // of the thread whose job it is: XLA takes denormal numbers for 0
  int helpers;
} pool = {.busy = PTHREAD_MUTEX_INITIALIZER, .sleep = PTHREAD_MUTEX_INITIALIZER, .woken = PTHREAD_COND_INITIALIZER};

static uint64_t job_number(void) { return atomic_load(&pool.shares[0].ticket) >> 40; }

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

// Its own share first, which lies where that thread's cache has the networks' other arrays, and then what others left.
static void take_tasks(int thread) {
  uint64_t job = UINT64_MAX;
  for (int i = 0; i <= pool.helpers; i++)
    for (;;) {
      uint64_t ticket = atomic_fetch_add(&pool.shares[(thread + i) % (pool.helpers + 1)].ticket, 1);
      int next = ticket & 0xfffff, end = (ticket >> 20) & 0xfffff;
      if (next >= end) break;
      if (thread && job != ticket >> 40) fesetenv(&pool.environment);
      job = ticket >> 40;
      pool.run(pool.job, next);
      atomic_fetch_add(&pool.done, 1);
    }
}

// Between two products of an update a helper stays awake, since to wake it takes longer than a small product. Those of
// wide networks lie farther apart, so how long it waits follows from how long it has worked. It leaves its core to
// whatever else wants it meanwhile: a thread that steps environments, above all.
static void *help(void *thread) {
  for (uint64_t seen = 0;; seen = job_number()) {
    int64_t begun = nanoseconds();
    take_tasks((int)(intptr_t)thread);
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

// So many threads in all, the caller's own included. To be called once. What a thread that cannot be made should do, the
// others do.
void maxent_start(int threads) {
  if (pthread_key_create(&ending, release)) abort();
  pool.helpers = threads - 1;
  for (intptr_t i = 1; i < threads; i++) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, help, (void *)i)) return;
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
  const uint64_t number = job_number() + 1;
  const int threads = pool.helpers + 1;
  for (int i = threads - 1; i >= 0; i--) {
    const uint64_t begin = (int64_t)tasks * i / threads, end = (int64_t)tasks * (i + 1) / threads;
    atomic_store(&pool.shares[i].ticket, number << 40 | end << 20 | begin);
  }
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
  const float *a;  // NULL: what the product before has left in the thread's memory
  long a_row, a_column;
  const float *b;
  long b_row, b_column;
  float *panels;      // B's panels, one after another; NULL: each is copied when its turn comes
  float *c;           // NULL: into the thread's memory, for the product that follows
  const float *bias;  // [n] or NULL
  int relu;           // negative entries become 0
  const float *mask;  // [m, n] or NULL: where it is not positive, C becomes 0
  const int *rows;    // the m rows of A, C and mask that are meant, or NULL for the first m
  float *sums;        // [n] or NULL: the sums of B's columns
} product;

// Some rows of a product, those that one task computes; and A and C of these alone, where they are the thread's.
typedef struct {
  int first, count;
  const float *a;
  float *c;
} block;

#define VEC(p) (*(const vec *)(p))

static int least(long a, long b) { return (int)(a < b ? a : b); }
static int most(int a, int b) { return a > b ? a : b; }

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

static inline long row_of(const product *p, int i) { return p->rows ? p->rows[i] : i; }

// The tile's rows into C; `last` numbers of the last vector, which the compiler is to know where they are all.
static inline __attribute__((always_inline)) void put_tile(
    const product *p, const block *block, const int rows, const int vecs, vec y[][2], int i, int column, const int last) {
#pragma GCC unroll 8
  for (int r = 0; r < rows; r++) {
    const long row = row_of(p, i + r);
    float *c = (p->c ? p->c + row * p->n : block->c + (long)(i + r - block->first) * p->n) + column;
    const float *mask = p->mask ? p->mask + row * p->n + column : NULL;
#pragma GCC unroll 2
    for (int v = 0; v < vecs; v++) {
      const int count = v < vecs - 1 ? LANES : last;
      if (p->relu) y[r][v] = (vec)((bits)y[r][v] & ~(y[r][v] < 0));
      if (mask) y[r][v] = (vec)((bits)y[r][v] & (get(mask + v * LANES, count) > 0));
      put(c + v * LANES, y[r][v], count);
    }
  }
}

// So few rows leave registers for several sums of each entry, where one would wait for itself at every step.
static inline __attribute__((always_inline)) void tile(
    const product *p, const block *block, const int rows, const int vecs, const float *panel, long stride, int i,
    int column) {
  const int ways = ROWS / rows;
  const long step = p->a_column;
  const float *a = p->a ? p->a : block->a, *b = panel;
  long from[ROWS];
  for (int r = 0; r < rows; r++) from[r] = (p->a ? row_of(p, i + r) : i + r - block->first) * p->a_row;
  const int last = least(p->n - column - (vecs - 1) * LANES, LANES);
  vec sum[ROWS][2];
  for (int v = 0; v < vecs; v++) {
    const vec bias = p->bias ? get(p->bias + column + v * LANES, v < vecs - 1 ? LANES : last) : (vec){0};
    for (int r = 0; r < ways * rows; r++) sum[r][v] = r < rows ? bias : (vec){0};
  }
  for (const float *end = b + p->k / ways * ways * stride; b != end; b += ways * stride, a += ways * step)
    for (int w = 0; w < ways; w++)
      for (int r = 0; r < rows; r++)
        for (int v = 0; v < vecs; v++) sum[w * rows + r][v] += a[from[r] + w * step] * VEC(b + w * stride + v * LANES);
  for (const float *end = panel + p->k * stride; b != end; b += stride, a += step)
    for (int r = 0; r < rows; r++)
      for (int v = 0; v < vecs; v++) sum[r][v] += a[from[r]] * VEC(b + v * LANES);
  vec y[ROWS][2];  // apart from the sums, which are to stay in registers until here
  for (int r = 0; r < rows; r++)
    for (int v = 0; v < vecs; v++) {
      y[r][v] = sum[r][v];
      for (int w = 1; w < ways; w++) y[r][v] += sum[w * rows + r][v];
    }
  if (last == LANES) put_tile(p, block, rows, vecs, y, i, column, LANES);
  else put_tile(p, block, rows, vecs, y, i, column, last);
}

static inline __attribute__((always_inline)) void tiles(
    const product *p, const block *b, const int vecs, const float *panel, long stride, int column) {
  int i = b->first, end = i + b->count;
  for (; i + ROWS <= end; i += ROWS) tile(p, b, ROWS, vecs, panel, stride, i, column);
  for (; i + 4 <= end; i += 4) tile(p, b, 4, vecs, panel, stride, i, column);
  for (; i + 2 <= end; i += 2) tile(p, b, 2, vecs, panel, stride, i, column);
  for (; i < end; i++) tile(p, b, 1, vecs, panel, stride, i, column);
}

// Four by four entries of a transposed matrix at a time, in registers.
typedef float quad __attribute__((vector_size(16), aligned(4)));
typedef int32_t quad_bits __attribute__((vector_size(16)));
#ifdef __clang__
#define MIX(x, y, ...) __builtin_shufflevector(x, y, __VA_ARGS__)
#else
#define MIX(x, y, ...) __builtin_shuffle(x, y, (quad_bits){__VA_ARGS__})
#endif

static inline void transpose_four(const float *from, long from_step, float *to, long to_step) {
  const quad *x[4];
  for (int i = 0; i < 4; i++) x[i] = (const quad *)(from + i * from_step);
  const quad a = MIX(*x[0], *x[1], 0, 4, 1, 5), b = MIX(*x[0], *x[1], 2, 6, 3, 7);
  const quad c = MIX(*x[2], *x[3], 0, 4, 1, 5), d = MIX(*x[2], *x[3], 2, 6, 3, 7);
  *(quad *)to = MIX(a, c, 0, 1, 4, 5);
  *(quad *)(to + to_step) = MIX(a, c, 2, 3, 6, 7);
  *(quad *)(to + 2 * to_step) = MIX(b, d, 0, 1, 4, 5);
  *(quad *)(to + 3 * to_step) = MIX(b, d, 2, 3, 6, 7);
}

static int width_of(const product *p, int column) { return p->n - column > LANES ? PANEL : LANES; }

// The panel's columns close together, filled up with zeros to whole vectors.
static void copy_panel(const product *p, int column, float *panel) {
  const int columns = least(p->n - column, PANEL), width = width_of(p, column);
  if (p->b_column == 1) {
    for (int i = 0; i < p->k; i++)
      for (int j = 0; j < width; j += LANES) {
        const int count = least(columns - j, LANES);
        put(panel + (long)i * width + j, count > 0 ? get(p->b + i * p->b_row + column + j, count) : (vec){0}, LANES);
      }
    return;
  }
  for (int j = 0; j < width; j += 4) {
    const float *b = p->b + (column + j) * p->b_column;
    int i = 0;
    if (j + 4 <= columns && p->b_row == 1)
      for (; i + 4 <= p->k; i += 4) transpose_four(b + i, p->b_column, panel + (long)i * width + j, width);
    for (; i < p->k; i++)
      for (int v = 0; v < 4; v++)
        panel[(long)i * width + j + v] = j + v < columns ? b[v * p->b_column + i * p->b_row] : 0;
  }
}

static inline float sum_lanes(vec x) {
  quad parts[LANES / 4], sum = {0};
  memcpy(parts, &x, sizeof(parts));
  for (int i = 0; i < LANES / 4; i++) sum += parts[i];
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

static float sum_of(const float *x, int count) {
  vec sum = {0};
  for (; count >= LANES; count -= LANES, x += LANES) sum += VEC(x);
  return sum_lanes(count ? sum + get(x, count) : sum);
}

// A single column, as critics have: sums along the rows of A, where a tile would be mostly empty.
static int is_column(const product *p) { return p->n == 1 && p->a_column == 1 && p->b_row == 1 && !p->sums; }

static void multiply_column(const product *p, const block *b) {
  for (int done = 0; done < b->count; done += 4) {
    const int rows = least(b->count - done, 4);
    const float *a[4];
    for (int r = 0; r < 4; r++) {
      const int i = done + (r < rows ? r : 0);
      a[r] = p->a ? p->a + row_of(p, b->first + i) * p->a_row : b->a + i * p->a_row;
    }
    vec sum[4] = {{0}};
    int i = 0;
    for (; i + LANES <= p->k; i += LANES)
      for (int r = 0; r < 4; r++) sum[r] += VEC(a[r] + i) * VEC(p->b + i);
    for (int r = 0; i < p->k && r < 4; r++) sum[r] += get(a[r] + i, p->k - i) * get(p->b + i, p->k - i);
    for (int r = 0; r < rows; r++) {
      const long row = row_of(p, b->first + done + r);
      float y = sum_lanes(sum[r]) + (p->bias ? *p->bias : 0);
      if (p->relu && y < 0) y = 0;
      if (p->mask && !(p->mask[row] > 0)) y = 0;
      if (p->c) p->c[row] = y;
      else b->c[done + r] = y;
    }
  }
}

enum { CLOSE = 1 << 12 };  // floats that stay in the first cache, beside a block's, wherever they lie

// Whether a panel is not worth a copy: it is read once, or B is small.
static int lies_well(const product *p, int column, int rows) {
  const int whole = p->b_column == 1 && p->n - column >= width_of(p, column);
  return whole && (rows <= ROWS || (long)p->k * p->n <= CLOSE);
}

static void multiply_panel(const product *p, const block *b, int column) {
  if (is_column(p)) {
    multiply_column(p, b);
    return;
  }
  const int width = width_of(p, column);
  const float *panel = p->b + column;
  long stride = p->b_row;
  if (p->panels) panel = p->panels + (long)column * p->k, stride = width;
  else if (!lies_well(p, column, b->count)) {
    float *copy = memory(PANEL_COPY, (size_t)p->k * width);
    copy_panel(p, column, copy);
    panel = copy, stride = width;
  }
  if (width == PANEL) tiles(p, b, 2, panel, stride, column);
  else tiles(p, b, 1, panel, stride, column);
  if (p->sums) {
    static const float one = 1;
    const product sum = {.m = 1, .n = p->n, .k = p->k, .a = &one, .c = p->sums};
    if (width == PANEL) tile(&sum, b, 1, 2, panel, stride, 0, column);
    else tile(&sum, b, 1, 1, panel, stride, 0, column);
  }
}

// ---- Products of many networks -------------------------------------------------------------------------------------

// Blocks of rows that a batch has at least, if it has the rows, and most tiles of one; multiplications from which on it
// pays to share them, and how many a copied float takes the time of; floats that a core's cache holds.
enum { BLOCKS = 8, MOST_TILES = 8, SHARED = 1 << 17, A_COPY = 10, CACHE = 1 << 18 };

// Of each of several networks so many products: products[e * count + i] is the i-th of network e.
typedef struct {
  product *products;
  int count, networks;
  int panels, rows, widest;  // at most, of a product
  int block;                 // rows of a task: whole tiles, so that it changes no bit
  int64_t work;
} list;

static list products_of(int count, int networks) {
  list l = {.products = calloc((size_t)count * networks + 1, sizeof(product)), .count = count, .networks = networks};
  if (!l.products) abort();
  return l;
}

// As many networks as have their arrays of so many floats each in the cache together, and at least one a thread.
static int at_once(size_t each, int networks) {
  const int threads = pool.helpers + 1, groups = least((each * networks + CACHE - 1) / CACHE, networks);
  const int even = groups ? (networks + groups - 1) / groups : networks;
  return least((even + threads - 1) / threads * threads, networks);
}

static void panel_task(const void *job, int task) {
  const list *l = job;
  const product *p = &l->products[task / l->panels];
  const int column = task % l->panels * PANEL;
  const block all = {.count = p->m};
  if (column < p->n) multiply_panel(p, &all, column);
}

static void copy_task(const void *job, int task) {
  const list *l = job;
  const product *p = &l->products[task / l->panels];
  const int column = task % l->panels * PANEL;
  if (column < p->n && p->panels) copy_panel(p, column, p->panels + (long)column * p->k);
}

static int blocks_of(const list *l) { return (l->rows + l->block - 1) / l->block; }

static void rows_task(const void *job, int task) {
  const list *l = job;
  const size_t half = (size_t)l->block * l->widest;
  const int blocks = blocks_of(l), network = task / blocks;
  float *own = memory(HIDDEN, 2 * half);
  for (int i = 0; i < l->count; i++) {
    const product *p = &l->products[network * l->count + i];
    block b = {.first = task % blocks * l->block, .a = own + (i + 1) % 2 * half, .c = own + i % 2 * half};
    b.count = least(p->m - b.first, l->block);
    for (int column = 0; b.count > 0 && column < p->n; column += PANEL) multiply_panel(p, &b, column);
  }
}

static void measure(list *l) {
  l->panels = l->rows = l->widest = l->work = 0;
  for (int i = 0; i < l->count * l->networks; i++) {
    const product *p = &l->products[i];
    l->panels = most(l->panels, (p->n + PANEL - 1) / PANEL);
    l->rows = most(l->rows, p->m);
    l->widest = most(l->widest, p->n);
    l->work += (int64_t)p->m * p->n * p->k;
  }
  l->block = ROWS * least(most(1, (l->rows + BLOCKS * ROWS - 1) / (BLOCKS * ROWS)), MOST_TILES);
}

static void share(const list *l, int64_t work, void (*run)(const void *, int), int tasks) {
  if (work >= SHARED) in_parallel(run, l, tasks);
  else
    for (int i = 0; i < tasks; i++) run(l, i);
}

// Products that need nothing of each other, by panels.
static void multiply_by_panels(list l) {
  measure(&l);
  share(&l, l.work, panel_task, l.networks * l.count * l.panels);
}

static size_t panel_floats(const product *p) { return (size_t)p->k * ((p->n + LANES - 1) / LANES * LANES); }

// Products whose rows need only those rows of the network's product before, by blocks of rows.
static void multiply_by_rows(list all) {
  if (!all.networks) return;
  size_t each = 0;
  for (int i = 0; i < all.count; i++) each += panel_floats(&all.products[i]);
  const int many = at_once(each, all.networks);
  float *panels = memory(PANEL_COPIES, each * many);
  for (int begin = 0; begin < all.networks; begin += many) {
    list l = all;
    l.products += begin * all.count;
    l.networks = least(many, all.networks - begin);
    measure(&l);
    float *next = panels;
    for (int i = 0; i < l.count * l.networks; i++) {
      product *p = &l.products[i];
      if (is_column(p) || p->m <= ROWS || lies_well(p, (p->n - 1) / PANEL * PANEL, p->m)) continue;
      p->panels = next;
      next += panel_floats(p);
    }
    share(&l, (next - panels) * A_COPY, copy_task, l.networks * l.count * l.panels);
    share(&l, l.work, rows_task, l.networks * blocks_of(&l));
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

// The matrix (own = 2) or vector (own = 1) of one network; NULL where there is no such array.
static float *part(const buffer *x, int own, const buffer *like, int network) {
  if (!x) return NULL;
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

// ---- Perceptrons ---------------------------------------------------------------------------------------------------

// x, W_1, b_1, …, W_L, b_L → y[, h_1, …, h_L-1]:  h_l = max(0, h_l-1 W_l + b_l) with h_0 = x,  y = h_L-1 W_L + b_L
XLA_FFI_Error *maxent_forward(frame *f) {
  if (asks_version(f)) return NULL;
  int depth = (int)f->args.size / 2, kept = f->rets.size > 1;
  buffer *y = result(f, 0);
  list l = products_of(depth, networks(y));
  for (int i = 0; i < depth; i++) {
    int last = i == depth - 1;
    buffer *from = !i ? argument(f, 0) : kept ? result(f, i) : NULL, *to = last ? y : kept ? result(f, i + 1) : NULL;
    buffer *weight = argument(f, 1 + 2 * i), *bias = argument(f, 2 + 2 * i);
    for (int e = 0; e < l.networks; e++)
      l.products[e * depth + i] = (product){
          .m = rows_of(y), .n = columns_of(weight), .k = rows_of(weight),
          .a = part(from, 2, y, e), .a_row = rows_of(weight), .a_column = 1,
          .b = part(weight, 2, y, e), .b_row = columns_of(weight), .b_column = 1,
          .c = part(to, 2, y, e), .bias = part(bias, 1, y, e), .relu = !last};
  }
  multiply_by_rows(l);
  free(l.products);
  return NULL;
}

// Backwards, both calls take g, W_1, …, W_L, h_0, …, h_L-1, and both need g_l = g_l+1 W_l+1ᵀ, 0 unless h_l > 0, with
// g_L = g and no condition on g_0. This is one network's product that gives the g_l of a layer.
static product pull_back(
    frame *f, const buffer *like, int network, int layer, const float *from, float *to, int m, const int *rows) {
  const int depth = (int)f->args.size / 2;
  const buffer *weight = argument(f, 1 + layer), *hidden = layer ? argument(f, 1 + depth + layer) : NULL;
  return (product){
      .m = m, .n = rows_of(weight), .k = columns_of(weight), .rows = rows,
      .a = from, .a_row = columns_of(weight), .a_column = 1,
      .b = part(weight, 2, like, network), .b_row = 1, .b_column = columns_of(weight),
      .c = to, .mask = part(hidden, 2, like, network)};
}

// → g_0. Rows whose gradient is 0 are left out: with the smaller of two critics, half of each one's.
XLA_FFI_Error *maxent_to_input(frame *f) {
  if (asks_version(f)) return NULL;
  const int depth = (int)f->args.size / 2;
  const buffer *to = result(f, 0), *gradient = argument(f, 0);
  const int rows = rows_of(to), columns = columns_of(gradient);
  list l = products_of(depth, networks(to));
  int *used = malloc(((size_t)l.networks * rows + 1) * sizeof(int));
  if (!used) abort();
  for (int e = 0; e < l.networks; e++) {
    const float *g = part(gradient, 2, to, e);
    float *c = part(to, 2, to, e);
    int count = 0, *own = used + (size_t)e * rows;
    memset(c, 0, (size_t)rows * columns_of(to) * sizeof(float));
    for (int row = 0; row < rows; row++) {  // without a jump, which nobody could predict
      int any = 0;
      for (int j = 0; j < columns; j++) any |= g[(long)row * columns + j] != 0;
      own[count] = row;
      count += any;
    }
    for (int i = 0; i < depth; i++)
      l.products[e * depth + i] =
          pull_back(f, to, e, depth - 1 - i, i ? NULL : g, i < depth - 1 ? NULL : c, count, own);
  }
  multiply_by_rows(l);
  free(l.products);
  free(used);
  return NULL;
}

// One network's product that gives dW_l = h_l-1ᵀ g_l, and db_l = Σ_batch g_l with it.
static product sum_over_batch(frame *f, const buffer *like, int network, int layer, const float *g) {
  const int depth = (int)f->args.size / 2;
  const buffer *hidden = argument(f, depth + layer), *gradient = result(f, 2 * layer - 2);
  const int inputs = columns_of(hidden), outputs = columns_of(gradient), batch = rows_of(argument(f, 0));
  const float *h = part(hidden, 2, like, network);
  float *weight = part(gradient, 2, like, network), *bias = part(result(f, 2 * layer - 1), 1, like, network);
  if (outputs > 1 || layer < depth)
    return (product){.m = inputs, .n = outputs, .k = batch, .a = h, .a_row = 1, .a_column = inputs,
                     .b = g, .b_row = outputs, .b_column = 1, .c = weight, .sums = bias};
  *bias = sum_of(g, batch);  // critics' single column is as well a row, which needs no tiles that are mostly empty
  return (product){.m = 1, .n = inputs, .k = batch, .a = g, .a_column = 1,
                   .b = h, .b_row = inputs, .b_column = 1, .c = weight};
}

// → dW_1, db_1, …, dW_L, db_L. Of so many networks at a time that their g_l stay in the cache; the next ones' take their
// place.
XLA_FFI_Error *maxent_gradients(frame *f) {
  if (asks_version(f)) return NULL;
  const int depth = (int)f->args.size / 2;
  const buffer *like = result(f, 0), *gradient = argument(f, 0);
  const int all = networks(like), batch = rows_of(gradient);
  size_t hidden = 0;
  for (int layer = 1; layer < depth; layer++) hidden += (size_t)batch * rows_of(argument(f, 1 + layer));
  const int many = at_once(hidden, all);
  float *own = memory(GRADIENTS, hidden * many);
  list back = products_of(depth - 1, many), sums = products_of(depth, many);
  for (int begin = 0; begin < all; begin += many) {
    back.networks = sums.networks = least(many, all - begin);
    product *next_back = back.products, *next_sum = sums.products;
    float *next = own;
    for (int e = begin; e < begin + sums.networks; e++) {
      const float *g = part(gradient, 2, like, e);
      for (int layer = depth; layer > 0; layer--) {
        *next_sum++ = sum_over_batch(f, like, e, layer, g);
        if (layer == 1) break;
        *next_back++ = pull_back(f, like, e, layer - 1, g, next, batch, NULL);
        g = next;
        next += (size_t)batch * rows_of(argument(f, layer));
      }
    }
    multiply_by_rows(back);
    multiply_by_panels(sums);
  }
  free(back.products);
  free(sums.products);
  return NULL;
}

// ---- Adam ----------------------------------------------------------------------------------------------------------

enum { NUMBERS = 1 << 14 };  // of a task: fewer take less time than another thread needs to hear of them

typedef struct {
  frame *f;
  int networks, tasks;  // of each network so many tasks
  long size;            // numbers of a network
} adam;

static long elements(const buffer *x) {
  long count = 1;
  for (int i = 0; i < x->rank; i++) count *= x->dims[i];
  return count;
}

// θ, m, v ← what follows from g, for so many numbers of one network. Of what is constant see the call.
static void descend(
    const float *constants, const float *restrict g, float *restrict m, float *restrict v, float *restrict x, long count) {
  const float keep_m = constants[0], take_m = constants[1], keep_v = constants[2], take_v = constants[3];
  const float rate = constants[4], correction = constants[5], epsilon = constants[6];
  for (long i = 0; i < count; i++) {
    m[i] = keep_m * m[i] + take_m * g[i];
    v[i] = keep_v * v[i] + take_v * (g[i] * g[i]);
    x[i] -= rate * m[i] / (sqrtf(correction * v[i]) + epsilon);
  }
}

static void adam_task(const void *job, int task) {
  const adam *a = job;
  const int arrays = (int)a->f->rets.size - 2, network = task / a->tasks;
  const long begin = task % a->tasks * (long)NUMBERS, end = begin + NUMBERS < a->size ? begin + NUMBERS : a->size;
  const float *constants = (const float *)argument(a->f, 0)->data + network * 7;
  float *m = (float *)result(a->f, 0)->data + network * a->size, *v = (float *)result(a->f, 1)->data + network * a->size;
  for (long i = 0, from = 0, size; i < arrays && from < end; i++, from += size) {
    size = elements(result(a->f, 2 + i)) / a->networks;
    const long first = begin > from ? begin : from, last = end < from + size ? end : from + size;
    const long at = network * size + first - from;
    const float *g = argument(a->f, 3 + arrays + i)->data;
    float *x = result(a->f, 2 + i)->data;
    if (first < last) descend(constants, g + at, m + first, v + first, x + at, last - first);
  }
}

// (β₁, 1 - β₁, β₂, 1 - β₂, η / (1 - β₁ᵗ), 1 / (1 - β₂ᵗ), ε), m, v, θ_1, …, θ_n, g_1, …, g_n → m, v, θ_1, …, θ_n in place,
// where m and v have the numbers of θ_1, …, θ_n behind one another. Leading axes count networks, and are everybody's.
XLA_FFI_Error *maxent_adam(frame *f) {
  if (asks_version(f)) return NULL;
  const buffer *m = result(f, 0);
  for (int i = 0; i < f->rets.size; i++)
    if (argument(f, 1 + i)->data != result(f, i)->data) abort();  // XLA has promised it
  adam a = {.f = f, .size = m->dims[m->rank - 1]};
  if (!elements(m)) return NULL;
  a.networks = (int)(elements(m) / a.size);
  a.tasks = (int)((a.size + NUMBERS - 1) / NUMBERS);
  in_parallel(adam_task, &a, a.networks * a.tasks);
  return NULL;
}

// ---- Turns ---------------------------------------------------------------------------------------------------------

// Where a program that goes on running and a thread that steps environments meet: the program gives an action, and takes
// the row that the action led to. See loops/turns.py, which owns the memory.
typedef struct {
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  int given, posted;  // an action nobody has fetched; a row nobody has taken
  int stopped, left;  // no row will come; the program takes no more
  int32_t next;       // the updates of the next turn
  int64_t patience;   // nanoseconds that the program waits for a row
  void *action, **row;
} table;

table *maxent_table(void *action, void **row) {
  table *t = calloc(1, sizeof(table));
  if (!t || pthread_mutex_init(&t->mutex, NULL) || pthread_cond_init(&t->changed, NULL)) abort();
  t->action = action;
  t->row = row;
  return t;
}

void maxent_remove_table(table *t) {
  pthread_mutex_destroy(&t->mutex);
  pthread_cond_destroy(&t->changed);
  free(t);
}

// Whether `what` has become true within so many nanoseconds, and before anybody stops; the table is locked.
static int wait_for(table *t, const int *what, int64_t nanoseconds) {
  struct timespec end;
  timespec_get(&end, TIME_UTC);
  nanoseconds += end.tv_nsec;
  end.tv_sec += nanoseconds / 1000000000;
  end.tv_nsec = nanoseconds % 1000000000;
  while (!*what && !t->stopped)
    if (pthread_cond_timedwait(&t->changed, &t->mutex, &end)) break;
  return *what;
}

static void tell(table *t, int *what) {
  *what = 1;
  pthread_cond_broadcast(&t->changed);
  pthread_mutex_unlock(&t->mutex);
}

// To be called before a program begins, when the one before has ended.
void maxent_lay(table *t, int64_t patience) {
  t->given = t->posted = t->stopped = t->left = 0;
  t->patience = patience;
}

// Whether there is an action, as there should be in a while.
int maxent_fetch(table *t, int64_t nanoseconds) {
  pthread_mutex_lock(&t->mutex);
  const int given = wait_for(t, &t->given, nanoseconds);
  t->given = 0;
  pthread_mutex_unlock(&t->mutex);
  return given;
}

// Whether the program takes the row that lies there.
int maxent_post(table *t, int32_t next) {
  pthread_mutex_lock(&t->mutex);
  const int left = t->left;
  t->next = next;
  tell(t, &t->posted);
  return !left;
}

// The program ends when it has taken the row that lies there, if any, and made the updates that were asked for with it.
void maxent_stop(table *t) {
  pthread_mutex_lock(&t->mutex);
  tell(t, &t->stopped);
}

static table *table_of(frame *f) { return *(table **)argument(f, 0)->data; }

static size_t bytes(const buffer *x) {
  const size_t count = elements(x);
  switch (x->dtype) {
    case XLA_FFI_DataType_S64: case XLA_FFI_DataType_U64: case XLA_FFI_DataType_F64: return 8 * count;
    case XLA_FFI_DataType_S32: case XLA_FFI_DataType_U32: case XLA_FFI_DataType_F32: return 4 * count;
    case XLA_FFI_DataType_S16: case XLA_FFI_DataType_U16: case XLA_FFI_DataType_F16: return 2 * count;
    default: return count;
  }
}

static void hand_through(frame *f) { memcpy(result(f, 0)->data, argument(f, 1)->data, bytes(result(f, 0))); }

// what, x → x. XLA does with x what it does when it has both.
XLA_FFI_Error *maxent_after(frame *f) {
  if (asks_version(f)) return NULL;
  hand_through(f);
  return NULL;
}

// table, x, action → x. What has to happen after the giving is made to depend on x.
XLA_FFI_Error *maxent_give(frame *f) {
  if (asks_version(f)) return NULL;
  table *t = table_of(f);
  hand_through(f);
  pthread_mutex_lock(&t->mutex);
  memcpy(t->action, argument(f, 2)->data, bytes(argument(f, 2)));
  tell(t, &t->given);
  return NULL;
}

// table, x, … → x, next, row. Waits for a row, but not for ever: whoever steps the environments may be waiting for the
// thread that waits here. `next` is -1 where this was the last row, and -2 where there is none.
XLA_FFI_Error *maxent_take(frame *f) {
  if (asks_version(f)) return NULL;
  table *t = table_of(f);
  hand_through(f);
  pthread_mutex_lock(&t->mutex);
  const int posted = wait_for(t, &t->posted, t->patience);
  const int32_t next = posted ? t->next : -2;
  t->posted = 0;
  t->left = next < 0;
  for (int i = 2; i < f->rets.size; i++) {
    const buffer *x = result(f, i);
    if (posted) memcpy(x->data, t->row[i - 2], bytes(x));
    else memset(x->data, 0, bytes(x));
  }
  pthread_mutex_unlock(&t->mutex);
  *(int32_t *)result(f, 1)->data = next;
  return NULL;
}
