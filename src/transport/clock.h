#pragma once
// The one clock of all measurements: steady, and the same for every thread and process of a machine.

namespace farskip {

/// Microseconds since boot (CLOCK_MONOTONIC).
double now_us();

/// Sleeps, without spinning, until now_us() reaches `deadline_us`; returns at once when it has passed.
void sleep_until_us(double deadline_us);

}  // namespace farskip
