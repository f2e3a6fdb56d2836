#include "trace/drawing.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace farskip {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

/// Length of the well-formed UTF-8 character at the start of `text`, 0 if it is broken.
size_t character_length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  const size_t length = first >= 0xC2 && first < 0xE0   ? 2
                        : first >= 0xE0 && first < 0xF0 ? 3
                        : first >= 0xF0 && first < 0xF5 ? 4
                                                        : 0;
  if (length == 0 || text.size() < length) return 0;
  uint32_t code = first & (0x7Fu >> length);
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
    code = code << 6 | (byte(i) & 0x3Fu);
  }
  const bool overlong = (length == 3 && code < 0x800) || (length == 4 && code < 0x10000);
  const bool forbidden = (code >= 0xD800 && code < 0xE000) || code > 0x10FFFF || code == 0xFFFE || code == 0xFFFF;
  return overlong || forbidden ? 0 : length;
}

struct Unit {
  std::string name;
  double us;
};

Unit unit_for(double us, std::string_view micro) {
  if (us < 1e3) return {std::string(micro), 1};
  if (us < 1e6) return {"ms", 1e3};
  return {"s", 1e6};
}

}  // namespace

std::string escape_xml(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const size_t length = character_length(text);
    const unsigned char first = static_cast<unsigned char>(text[0]);
    if (length == 0 || (first < 0x20 && first != '\n' && first != '\t') || first == 0x7F) {
      out += kReplacement;
    } else if (first == '&') {
      out += "&amp;";
    } else if (first == '<') {
      out += "&lt;";
    } else if (first == '>') {
      out += "&gt;";
    } else if (first == '"') {
      out += "&quot;";
    } else if (first == '\'') {
      out += "&#39;";
    } else {
      out += text.substr(0, length);
    }
    text.remove_prefix(std::max<size_t>(1, length));
  }
  return out;
}

size_t num_characters(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

double round_step(double range, int max_steps) {
  if (!(range > 0)) return 1;
  const double rough = range / std::max(1, max_steps);
  const double power = std::pow(10, std::floor(std::log10(rough)));
  for (double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= rough * (1 - 1e-9)) return factor * power;
  }
  return 10 * power;
}

std::vector<double> round_ticks(double low, double high, int max_steps) {
  const double step = round_step(high - low, max_steps);
  std::vector<double> ticks;
  const double first = std::ceil(low / step - 1e-9);
  for (double i = first; i * step <= high + step * 1e-9 && ticks.size() < 1000; ++i) {
    ticks.push_back(i == 0 ? 0 : i * step);  // no negative zero
  }
  return ticks;
}

std::string format_tick(double value, double step) {
  if (std::abs(value) >= 1e7 || (value != 0 && std::abs(value) < 1e-4)) return fmt::format("{:.3g}", value);
  const int decimals = std::clamp(static_cast<int>(-std::floor(std::log10(step) + 1e-9)), 0, 9);
  return fmt::format("{:.{}f}", value, decimals);
}

std::string format_us(double us, std::string_view micro) {
  if (us == 0) return fmt::format("0 {}", micro);
  const double digit = std::pow(10, std::floor(std::log10(std::abs(us))) - 2);
  const double rounded = std::round(us / digit) * digit;  // 999.9 us is 1.00 ms, not 1000 us
  const Unit unit = unit_for(std::abs(rounded) * (1 + 1e-12), micro);
  const double value = rounded / unit.us;
  const int decimals = std::clamp(2 - static_cast<int>(std::floor(std::log10(std::abs(value)) + 1e-9)), 0, 3);
  return fmt::format("{:.{}f} {}", value, decimals, unit.name);
}

TimeTicks time_ticks(double from_us, double to_us, int max_steps, std::string_view micro) {
  TimeTicks ticks;
  ticks.at_us = round_ticks(from_us, to_us, max_steps);
  const Unit unit = unit_for(to_us, micro);
  const double step = round_step(to_us - from_us, max_steps) / unit.us;
  for (double at : ticks.at_us) {
    ticks.labels.push_back(at == 0 ? "0" : fmt::format("{} {}", format_tick(at / unit.us, step), unit.name));
  }
  return ticks;
}

}  // namespace farskip
