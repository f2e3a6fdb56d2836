#include "tokenizer/decoder.h"

#include <charconv>
#include <optional>

#include "tokenizer/components.h"
#include "tokenizer/utf8.h"

namespace farskip {
namespace {

constexpr std::string_view kSupported = "ByteLevel, Metaspace, and Sequence of Replace, ByteFallback, Fuse, Strip";

/// 0 to 255 of <0x00> to <0xFF>.
std::optional<char> fallback_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  unsigned value = 0;
  const auto [end, status] = std::from_chars(token.data() + 3, token.data() + 5, value, 16);
  if (status != std::errc() || end != token.data() + 5) return std::nullopt;
  return static_cast<char>(value);
}

std::string replaced(std::string_view text, std::string_view from, std::string_view to) {
  std::string result;
  for (size_t at; (at = text.find(from)) != std::string_view::npos; text.remove_prefix(at + from.size())) {
    result.append(text.substr(0, at)).append(to);
  }
  return result.append(text);
}

/// Without up to `start` `what` at the beginning and `stop` at the end.
std::string stripped(std::string_view text, std::string_view what, int64_t start, int64_t stop) {
  for (; start > 0 && text.starts_with(what); --start) text.remove_prefix(what.size());
  for (; stop > 0 && text.ends_with(what); --stop) text.remove_suffix(what.size());
  return std::string(text);
}

/// Runs of byte tokens become their characters, or U+FFFD for each byte of a run that is no UTF-8.
std::vector<std::string> with_fallback(const std::vector<std::string>& tokens) {
  std::vector<std::string> result;
  std::string run;
  const auto end_run = [&] {
    if (run.empty()) return;
    if (is_utf8(run)) {
      result.push_back(run);
    } else {
      for (size_t i = 0; i < run.size(); ++i) result.emplace_back("\uFFFD");
    }
    run.clear();
  };
  for (const std::string& token : tokens) {
    if (const auto byte = fallback_byte(token)) {
      run += *byte;
      continue;
    }
    end_run();
    result.push_back(token);
  }
  end_run();
  return result;
}

}  // namespace

TokenDecoder::TokenDecoder(const nlohmann::json& json, const std::string& where) {
  if (json.is_null()) {
    kind_ = Kind::spaces;
    return;
  }
  const Component component(json, where + ": decoder");
  if (component.type() == "ByteLevel") return;
  kind_ = Kind::chain;
  if (component.type() != "Sequence") {
    add(json, where);
    return;
  }
  const auto steps = component.list("decoders");
  if (steps.size() == 1 && steps[0].type() == "ByteLevel") {
    kind_ = Kind::byte_level;
    return;
  }
  for (const Component& step : steps) add(step.json(), where);
}

TokenDecoder TokenDecoder::byte_level() { return TokenDecoder(); }

void TokenDecoder::add(const nlohmann::json& json, const std::string& where) {
  const Component component(json, where + ": decoder");
  const std::string& type = component.type();
  Step step{};
  if (type == "Replace") {
    const auto pattern = component.pattern();
    if (pattern.is_regex || pattern.text.empty()) component.refuse("only a pattern {\"String\": ...} is supported");
    step = {Step::What::replace, pattern.text, component.text("content")};
  } else if (type == "ByteFallback") {
    step.what = Step::What::byte_fallback;
  } else if (type == "Fuse") {
    step.what = Step::What::fuse;
  } else if (type == "Strip") {
    step = {Step::What::strip, component.text("content"), "", component.integer("start", 0),
            component.integer("stop", 0)};
    if (step.from.empty()) component.refuse("the content is empty");
    if (steps_.empty() || steps_.back().what != Step::What::fuse) component.refuse("is supported only behind Fuse");
  } else if (type == "Metaspace") {
    const std::string scheme =
        component.text("prepend_scheme", component.flag("add_prefix_space", true) ? "always" : "never");
    step = {Step::What::metaspace, component.text("replacement", "▁"), " ", 0, 0, scheme != "never"};
  } else {
    component.refuse_type(kSupported);
  }
  steps_.push_back(std::move(step));
}

void TokenDecoder::apply(const Step& step, std::vector<std::string>& tokens) const {
  switch (step.what) {
    case Step::What::replace:
      for (auto& token : tokens) token = replaced(token, step.from, step.to);
      return;
    case Step::What::byte_fallback:
      tokens = with_fallback(tokens);
      return;
    case Step::What::fuse: {
      std::string all;
      for (const auto& token : tokens) all += token;
      tokens = {std::move(all)};
      return;
    }
    case Step::What::strip:
      for (auto& token : tokens) token = stripped(token, step.from, step.start, step.stop);
      return;
    case Step::What::metaspace:
      for (size_t i = 0; i < tokens.size(); ++i) {
        tokens[i] = replaced(tokens[i], step.from, i == 0 && step.prepended ? "" : step.to);
      }
  }
}

std::string TokenDecoder::decode(std::span<const std::string_view> tokens) const {
  std::string text;
  if (kind_ != Kind::chain) {
    for (size_t i = 0; i < tokens.size(); ++i) text += bytes(tokens[i], i == 0);
    return replace_invalid_utf8(text);
  }
  std::vector<std::string> parts(tokens.begin(), tokens.end());
  for (const Step& step : steps_) apply(step, parts);
  for (const auto& part : parts) text += part;
  return text;
}

std::string TokenDecoder::bytes(std::string_view token, bool is_first) const {
  if (token.empty()) return "";
  if (kind_ == Kind::byte_level) {
    auto bytes = alphabet_.bytes(token);
    return bytes ? std::move(*bytes) : std::string(token);
  }
  std::string text(is_first || kind_ != Kind::spaces ? "" : " ");
  text.append(token);
  if (kind_ == Kind::spaces) return text;
  for (const Step& step : steps_) {
    switch (step.what) {
      case Step::What::replace:
        text = replaced(text, step.from, step.to);
        break;
      case Step::What::byte_fallback:
        if (const auto byte = fallback_byte(text)) text = *byte;
        break;
      case Step::What::fuse:
        break;
      case Step::What::strip:
        if (is_first) text = stripped(text, step.from, step.start, 0);
        break;
      case Step::What::metaspace:
        text = replaced(text, step.from, is_first && step.prepended ? "" : step.to);
    }
  }
  return text;
}

}  // namespace farskip
