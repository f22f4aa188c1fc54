// Work for the processor, one kernel per argument: the same source is built natively.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t k[64], h[8];

static uint32_t rotr(uint32_t x, int n) { return x >> n | x << (32 - n); }

static void block(const uint8_t *p) {
	uint32_t w[64], v[8];
	for (int i = 0; i < 16; i++) w[i] = p[4 * i] << 24 | p[4 * i + 1] << 16 | p[4 * i + 2] << 8 | p[4 * i + 3];
	for (int i = 16; i < 64; i++) {
		uint32_t a = rotr(w[i - 15], 7) ^ rotr(w[i - 15], 18) ^ w[i - 15] >> 3;
		uint32_t b = rotr(w[i - 2], 17) ^ rotr(w[i - 2], 19) ^ w[i - 2] >> 10;
		w[i] = w[i - 16] + a + w[i - 7] + b;
	}
	memcpy(v, h, sizeof v);
	for (int i = 0; i < 64; i++) {
		uint32_t t1 = v[7] + (rotr(v[4], 6) ^ rotr(v[4], 11) ^ rotr(v[4], 25)) + ((v[4] & v[5]) ^ (~v[4] & v[6])) + k[i] + w[i];
		uint32_t t2 = (rotr(v[0], 2) ^ rotr(v[0], 13) ^ rotr(v[0], 22)) + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
		for (int j = 7; j > 0; j--) v[j] = v[j - 1];
		v[4] += t1;
		v[0] = t1 + t2;
	}
	for (int i = 0; i < 8; i++) h[i] += v[i];
}

static void sha(int mib) {
	uint8_t b[64];
	for (int i = 0; i < 64; i++) k[i] = 2654435761u * (i + 1), b[i] = i;
	for (int i = 0; i < 8; i++) h[i] = 40503u * (i + 1);
	for (long n = 0; n < mib * (1L << 20) / 64; n++) b[n & 63]++, block(b);
	printf("%08x\n", h[0]);
}

static void mandelbrot(int n) {
	long inside = 0;
	for (int y = 0; y < n; y++)
		for (int x = 0; x < n; x++) {
			double cr = 3.0 * x / n - 2.2, ci = 2.4 * y / n - 1.2, r = 0, i = 0;
			int steps = 0;
			for (; steps < 200 && r * r + i * i < 4; steps++) {
				double t = r * r - i * i + cr;
				i = 2 * r * i + ci;
				r = t;
			}
			inside += steps;
		}
	printf("%ld\n", inside);
}

static void blur(int n) {
	uint8_t *a = malloc(n * n), *b = malloc(n * n);
	for (int i = 0; i < n * n; i++) a[i] = i * 7;
	for (int round = 0; round < 8; round++) {
		for (int y = 0; y < n; y++)
			for (int x = 0; x < n; x++) {
				int sum = 0, count = 0;
				for (int dy = -2; dy <= 2; dy++)
					for (int dx = -2; dx <= 2; dx++) {
						int yy = y + dy, xx = x + dx;
						if (yy < 0 || yy >= n || xx < 0 || xx >= n) continue;
						sum += a[yy * n + xx];
						count++;
					}
				b[y * n + x] = sum / count;
			}
		uint8_t *t = a;
		a = b;
		b = t;
	}
	unsigned sum = 0;
	for (int i = 0; i < n * n; i++) sum = sum * 31 + a[i];
	printf("%08x\n", sum);
}

int main(int argc, char **argv) {
	int n = argc > 2 ? atoi(argv[2]) : 1;
	if (argc > 1 && !strcmp(argv[1], "sha")) sha(n);
	if (argc > 1 && !strcmp(argv[1], "mandelbrot")) mandelbrot(n);
	if (argc > 1 && !strcmp(argv[1], "blur")) blur(n);
	return 0;
}
