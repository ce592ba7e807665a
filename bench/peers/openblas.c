// A peer for the benchmark programs: OpenBLAS, timed on request.
//
//	gcc -O2 -o /tmp/openblas bench/peers/openblas.c -ldl
//
// Reads lines from standard input and answers each with the nanoseconds of one
// call, the best of several rounds within the time asked for:
//
//	gemm s|d TRANSA TRANSB M N K THREADS MILLISECONDS
//	syevd|potrf|gesdd N M THREADS MILLISECONDS
//	core
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void *lib;
static void *sym(const char *name) {
	void *p = dlsym(lib, name);
	if (!p) {
		fprintf(stderr, "openblas: no %s\n", name);
		exit(1);
	}
	return p;
}

static double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static int m, n, k, ta, tb;
static void *a, *b, *c, *w;

static void (*sgemm)(int, int, int, int, int, int, float, const void *, int, const void *, int, float, void *, int);
static void (*dgemm)(int, int, int, int, int, int, double, const void *, int, const void *, int, double, void *, int);

static void call_s(void) { sgemm(101, ta ? 112 : 111, tb ? 112 : 111, m, n, k, 1, a, ta ? m : k, b, tb ? k : n, 0, c, n); }
static void call_d(void) { dgemm(101, ta ? 112 : 111, tb ? 112 : 111, m, n, k, 1, a, ta ? m : k, b, tb ? k : n, 0, c, n); }

static void (*syevd)(char *, char *, int *, double *, int *, double *, double *, int *, int *, int *, int *, long, long);
static void (*potrf)(char *, int *, double *, int *, int *, long);
static void (*gesdd)(char *, int *, int *, double *, int *, double *, double *, int *, double *, int *, double *, int *, int *, int *, long);
static double *work;
static int lwork, *iwork, liwork, info;

static void call_syevd(void) {
	memcpy(c, a, sizeof(double) * n * n);
	syevd("V", "L", &n, c, &n, w, work, &lwork, iwork, &liwork, &info, 1, 1);
}
static void call_potrf(void) {
	memcpy(c, b, sizeof(double) * n * n);
	potrf("L", &n, c, &n, &info, 1);
}
static void call_gesdd(void) {
	memcpy(c, a, sizeof(double) * n * m);
	gesdd("N", &n, &m, c, &n, w, work, &n, work, &n, work, &lwork, iwork, &info, 1);
}

// run times f: the best mean of rounds that each take a tenth of the time.
static double run(void (*f)(void), double ms) {
	f();
	double best = 1e300, end = now() + ms * 1e6;
	long reps = 1;
	do {
		double t = now();
		for (long i = 0; i < reps; i++) f();
		t = now() - t;
		if (t / reps < best) best = t / reps;
		if (t < ms * 1e5) reps = reps * 2;
	} while (now() < end);
	return best;
}

static void *filled(size_t count, int size) {
	void *p = aligned_alloc(64, (count * size + 4096) & ~(size_t)63);
	unsigned long long x = 88172645463325252ull;
	for (size_t i = 0; i < count; i++) {
		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		double v = (double)(x >> 11) / 9007199254740992.0 - 0.5;
		if (size == 4) ((float *)p)[i] = v;
		else ((double *)p)[i] = v;
	}
	return p;
}

int main(void) {
	lib = dlopen("libopenblas.so.0", RTLD_NOW);
	if (!lib) {
		fprintf(stderr, "openblas: %s\n", dlerror());
		return 1;
	}
	sgemm = sym("cblas_sgemm"), dgemm = sym("cblas_dgemm");
	syevd = sym("dsyevd_"), potrf = sym("dpotrf_"), gesdd = sym("dgesdd_");
	void (*threads)(int) = sym("openblas_set_num_threads");
	char *(*core)(void) = sym("openblas_get_corename");
	char line[256], op[16], type;
	int nt;
	double ms;
	while (fgets(line, sizeof line, stdin)) {
		if (!strncmp(line, "core", 4)) {
			printf("%s\n", core());
		} else if (sscanf(line, "gemm %c %d %d %d %d %d %d %lf", &type, &ta, &tb, &m, &n, &k, &nt, &ms) == 8) {
			int size = type == 's' ? 4 : 8;
			a = filled((size_t)m * k, size), b = filled((size_t)k * n, size), c = filled((size_t)m * n, size);
			threads(nt);
			printf("%.1f\n", run(type == 's' ? call_s : call_d, ms));
			free(a), free(b), free(c);
		} else if (sscanf(line, "%15s %d %d %d %lf", op, &n, &m, &nt, &ms) == 5) {
			threads(nt);
			size_t big = n > m ? n : m;
			a = filled(big * n, 8), b = filled((size_t)n * n, 8), c = filled(big * n, 8), w = filled(big, 8);
			lwork = 8 * big * n + 100 * big, liwork = 100 * big;
			work = filled(lwork, 8), iwork = malloc(sizeof(int) * liwork);
			// a and b symmetric, b diagonally dominant.
			if (n == m)
				for (int i = 0; i < n; i++)
					for (int j = 0; j <= i; j++) {
						((double *)a)[j * n + i] = ((double *)a)[i * n + j];
						((double *)b)[j * n + i] = ((double *)b)[i * n + j] + (i == j ? n : 0);
					}
			printf("%.1f\n", run(!strcmp(op, "syevd") ? call_syevd : !strcmp(op, "potrf") ? call_potrf : call_gesdd, ms));
			if (info) fprintf(stderr, "openblas: %s: info %d\n", op, info);
			free(a), free(b), free(c), free(w), free(work), free(iwork);
		} else {
			printf("what?\n");
		}
		fflush(stdout);
	}
	return 0;
}
