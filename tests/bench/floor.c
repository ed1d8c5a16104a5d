/*
 * The floor of `make bench`: the first process of a machine that does nothing. It says one line on the serial console
 * and switches the machine off, so that what is left is what firmware, kernel and QEMU cost.
 *
 * Not here: anything that is measured; the line's arrival is timed outside.
 */
#include <fcntl.h>
#include <sys/reboot.h>
#include <termios.h>
#include <unistd.h>

int main(void)
{
	static const char line[] = "\nfloor: reached\n";
	int console = open("/dev/ttyS0", O_RDWR | O_NOCTTY);

	if (console >= 0 && write(console, line, sizeof(line) - 1) > 0)
		tcdrain(console);
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}
