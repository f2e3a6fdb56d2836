#pragma once
// Small things every drawing needs: escaping, round ticks, times with units.

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace farskip {

/// For text and quoted attributes of XML and HTML. Characters XML forbids and broken UTF-8 become U+FFFD.
std::string escape_xml(std::string_view text);
/// Number of characters (code points) of UTF-8 text.
size_t num_characters(std::string_view text);

/// A distance of 1, 2 or 5 times a power of ten that divides `range` into at most `max_steps` parts.
double round_step(double range, int max_steps);
/// The multiples of round_step within [low, high].
std::vector<double> round_ticks(double low, double high, int max_steps);
/// A tick's value with as many decimals as its step needs.
std::string format_tick(double value, double step);

/// A length of time with three digits and its unit: "12.3 ms". `micro` spells the unit of microseconds ("us" in ASCII).
std::string format_us(double us, std::string_view micro = "µs");

/// The ticks of a time axis in one unit for all of them.
struct TimeTicks {
  std::vector<double> at_us;
  std::vector<std::string> labels;  ///< "5 ms"
};
TimeTicks time_ticks(double from_us, double to_us, int max_steps, std::string_view micro = "µs");

}  // namespace farskip
