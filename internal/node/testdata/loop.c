// Never ends.
volatile int x;

int main(void) {
	for (;;) x++;
}
