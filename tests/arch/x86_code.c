/* SPDX-License-Identifier: GPL-2.0-only */
/* Something of everything that a compiler makes instructions from. */

extern int printk(const char *, ...);
extern void *memcpy(void *, const void *, unsigned long);
extern int shared[1024];
static int table[64];
struct pair { long a; short b; char c; };
int dispatch(int n, struct pair *p)
{
    switch (n) {
    case 0: return printk("zero %d", p->b);
    case 1: p->b = 0x1234; return shared[p->c];
    case 2: p->a += 0x12345678; return table[n + p->c]++;
    case 3: p->b *= 0x4321; return __builtin_popcount(p->a);
    case 4: return (int)(p->a / 7 + p->a % p->b);
    case 5: p->c ^= 0x55; return p->b == 0x7788;
    case 6: return __sync_fetch_and_add(&shared[3], 5);
    case 7: return __sync_bool_compare_and_swap(&p->a, 3, 4);
    default: return ((p->a & 0x1122334455667788) == 0x1122334455667700) ? dispatch(n - 1, p) : n;
    }
}
void floats(double *restrict a, const double *restrict b, float *restrict c, int n)
{
    for (int i = 0; i < n; i++) { a[i] = a[i] * 3.25 + b[i] / (double)i; c[i] = (float)a[i] - 0.5f; }
}
void bytes(unsigned char *restrict a, const unsigned char *restrict b, int n)
{
    for (int i = 0; i < n; i++) a[i] = (a[i] > 100 ? b[i] * 3 : a[i] ^ b[63 - (i & 63)]) >> 1;
}
long gather(const int *index, const long *from, int n)
{
    long sum = 0;
    for (int i = 0; i < n; i++) sum += from[index[i]] * index[n - i];
    return sum;
}
unsigned __int128 wide(unsigned __int128 a, unsigned long b, int n) { return (a * b) >> n; }
long double old(long double a, long b) { return a * b + 2.5L; }
void copy(char *to, const char *from) { memcpy(to, from, 4096); table[from[5]] = 0x11223344; }
