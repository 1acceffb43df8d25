/* Threads that take the parts of a pass. Included by _loops.c, after _work.h. */

#if defined(__linux__) && defined(__GLIBC__)
typedef cpu_set_t Processors;
#else
typedef char Processors; /* threads are not placed */
#endif

/* Parts are taken by whatever thread is free: where another pool's threads still spin on a core, the others go on. Each
   part has its own sums, so who took it changes nothing. */
typedef struct {
    void *(*worker)(void *);
    char *parts;
    size_t size;
    int count;
    Processors allowed; /* of the thread that made it */
    atomic_int next;
} Queue;

static void *take(void *argument) {
    Queue *queue = argument;
    for (int i; (i = atomic_fetch_add(&queue->next, 1)) < queue->count;) queue->worker(queue->parts + i * queue->size);
    return NULL;
}

#if defined(__linux__) && defined(__GLIBC__)
static void remember(Processors *allowed) {
    if (sched_getaffinity(0, sizeof *allowed, allowed) != 0) CPU_ZERO(allowed);
}

static void *help(void *argument) {
    const Queue *queue = argument;
    sched_setaffinity(0, sizeof queue->allowed, &queue->allowed);
    return take(argument);
}

/* A thread that is created after a rest may be put on its creator's processor, where it waits for the scheduler's next
   tick. So it is created for the other processors; once it runs, it may run on any. */
static int create(pthread_t *thread, Queue *queue) {
    pthread_attr_t elsewhere;
    const int here = sched_getcpu();
    Processors others = queue->allowed;
    if (here >= 0) CPU_CLR(here, &others);
    if (CPU_COUNT(&others) > 0 && pthread_attr_init(&elsewhere) == 0) {
        int failed = pthread_attr_setaffinity_np(&elsewhere, sizeof others, &others);
        failed = failed || pthread_create(thread, &elsewhere, help, queue);
        pthread_attr_destroy(&elsewhere);
        if (!failed) return 0;
    }
    return pthread_create(thread, NULL, take, queue);
}
#else
static void remember(Processors *allowed) { *allowed = 0; }

static int create(pthread_t *thread, Queue *queue) { return pthread_create(thread, NULL, take, queue); }
#endif

/* Run the worker on each of `count` consecutive structures. */
static void run(void *(*worker)(void *), void *parts, size_t size, int count, int threads) {
    pthread_t others[MAX_THREADS];
    int started = 0;
    Queue queue = {.worker = worker, .parts = parts, .size = size, .count = count};
    if (threads > 1 && count > 1) remember(&queue.allowed);
    while (started < threads - 1 && started < count - 1) {
        if (create(&others[started], &queue) != 0) break;
        started++;
    }
    take(&queue);
    for (int i = 0; i < started; i++) pthread_join(others[i], NULL);
}
