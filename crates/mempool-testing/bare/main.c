int bare_run(void);
int main(void) { return bare_run(); }
