#pragma once
// Ways to damage a safetensors file, from single bits to well-formed headers that lie.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace farskip::fuzz {

class Mutator {
 public:
  explicit Mutator(uint64_t seed) : random_(seed) {}

  /// One damaged file made of a valid one: its bytes, its length field, or its header rewritten.
  std::string file(const std::string& valid);
  /// A damaged index (model.safetensors.index.json) made of a valid one.
  std::string index(const std::string& valid);

 private:
  size_t below(size_t bound) { return static_cast<size_t>(random_() % bound); }
  template <typename T>
  const T& one_of(const std::vector<T>& list) {
    return list[below(list.size())];
  }
  /// A number as JSON text that a careless reader trips over, or one near `near`.
  std::string number(int64_t near);
  std::string list(const nlohmann::ordered_json& values);
  std::string value(const nlohmann::ordered_json& found);
  /// One tensor's entry, `damaged` or as it is.
  std::string entry(const nlohmann::ordered_json& tensor, bool damaged);
  void damage_bytes(std::string& text);
  std::string header(const nlohmann::ordered_json& valid);

  std::mt19937_64 random_;
};

}  // namespace farskip::fuzz
