#include "tokenizer/pre_tokenizer.h"

#include <optional>
#include <utility>
#include <vector>

#include "base/error.h"
#include "tokenizer/components.h"

namespace farskip {

const char* const kByteLevelPattern = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

namespace {

enum class Behavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

Behavior behavior_of(const Component& component, const std::string& fallback) {
  const std::string name = component.text("behavior", fallback);
  if (name == "Removed") return Behavior::removed;
  if (name == "Isolated") return Behavior::isolated;
  if (name == "MergedWithPrevious") return Behavior::merged_with_previous;
  if (name == "MergedWithNext") return Behavior::merged_with_next;
  if (name == "Contiguous") return Behavior::contiguous;
  component.refuse("behavior " + name +
                   " is unknown; known are Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous");
}

std::string escaped(std::string_view literal) {
  std::string pattern;
  for (const char c : literal) {
    if (static_cast<unsigned char>(c) < 0x80 && !std::isalnum(static_cast<unsigned char>(c))) pattern += '\\';
    pattern += c;
  }
  return pattern;
}

/// Cuts at the matches of an expression.
class Split : public PreTokenizer {
 public:
  Split(std::string_view pattern, Behavior behavior, bool invert)
      : pattern_(pattern), behavior_(behavior), invert_(invert) {}

  void cut(std::string_view text, bool, MatchScratch& scratch, PieceSink& sink) const override {
    if (behavior_ == Behavior::isolated) {
      each_part(text, scratch, [&](size_t begin, size_t end, bool) { sink.add(text.substr(begin, end - begin)); });
      return;
    }
    struct Part {
      size_t begin, end;
      bool is_match;
    };
    std::vector<Part> parts;  // merged as far as `behavior_` says
    bool previous = false;
    each_part(text, scratch, [&](size_t begin, size_t end, bool is_match) {
      const bool merge = behavior_ == Behavior::contiguous             ? is_match == previous
                         : behavior_ == Behavior::merged_with_previous ? is_match && !previous
                         : behavior_ == Behavior::merged_with_next     ? previous && !is_match
                                                                       : false;
      previous = is_match;
      if (behavior_ == Behavior::removed && is_match) return;
      if (merge && !parts.empty()) {
        parts.back().end = end;
      } else {
        parts.push_back({begin, end, is_match});
      }
    });
    for (const Part& part : parts) sink.add(text.substr(part.begin, part.end - part.begin));
  }

 private:
  template <typename Use>
  void each_part(std::string_view text, MatchScratch& scratch, const Use& use) const {
    size_t done = 0;
    for (size_t from = 0, begin, end; from < text.size() && pattern_.find(text, from, scratch, begin, end);) {
      if (begin > done) use(done, begin, invert_);
      if (end > begin) use(begin, end, !invert_);
      done = end;
      from = end;
      if (end == begin && end < text.size()) {  // past an empty match by a whole character
        do ++from;
        while (from < text.size() && (static_cast<unsigned char>(text[from]) & 0xC0) == 0x80);
      }
    }
    if (done < text.size()) use(done, text.size(), invert_);
  }

  Pattern pattern_;
  Behavior behavior_;
  bool invert_;
};

/// Puts a prefix before a piece that does not begin with it.
class Prefix : public PreTokenizer {
 public:
  explicit Prefix(std::string prefix) : prefix_(std::move(prefix)) {}
  void cut(std::string_view text, bool, MatchScratch&, PieceSink& sink) const override {
    if (text.starts_with(prefix_)) {
      sink.add(text);
    } else {
      sink.add(prefix_ + std::string(text));
    }
  }

 private:
  std::string prefix_;
};

/// Spaces become `replacement`, one is put in front as `scheme` says, and pieces begin at each.
class Metaspace : public PreTokenizer {
 public:
  enum class Scheme { never, first, always };
  Metaspace(std::string replacement, Scheme scheme, bool split)
      : replacement_(std::move(replacement)), scheme_(scheme) {
    if (split) split_.emplace(escaped(replacement_), Behavior::merged_with_next, false);
  }
  void cut(std::string_view text, bool is_first, MatchScratch& scratch, PieceSink& sink) const override {
    std::string changed;
    for (const char c : text) c == ' ' ? changed += replacement_ : changed += c;
    const bool prepend = scheme_ == Scheme::always || (scheme_ == Scheme::first && is_first);
    if (prepend && !changed.starts_with(replacement_)) changed.insert(0, replacement_);
    if (split_) {
      split_->cut(changed, is_first, scratch, sink);
    } else {
      sink.add(changed);
    }
  }

 private:
  std::string replacement_;
  Scheme scheme_;
  std::optional<Split> split_;
};

class SequencePreTokenizer : public PreTokenizer {
 public:
  explicit SequencePreTokenizer(std::vector<std::unique_ptr<PreTokenizer>> steps) : steps_(std::move(steps)) {}
  void cut(std::string_view text, bool is_first, MatchScratch& scratch, PieceSink& sink) const override {
    run(0, text, is_first, scratch, sink);
  }

 private:
  struct Next : PieceSink {
    Next(const SequencePreTokenizer& sequence, size_t step, bool is_first, MatchScratch& scratch, PieceSink& sink)
        : sequence(sequence), step(step), is_first(is_first), scratch(scratch), sink(sink) {}
    void add(std::string_view piece) override {
      sequence.run(step, piece, std::exchange(is_first, false), scratch, sink);
    }
    const SequencePreTokenizer& sequence;
    size_t step;
    bool is_first;
    MatchScratch& scratch;
    PieceSink& sink;
  };
  void run(size_t step, std::string_view text, bool is_first, MatchScratch& scratch, PieceSink& sink) const {
    if (step + 1 >= steps_.size()) {
      steps_[step]->cut(text, is_first, scratch, sink);
    } else {
      Next next(*this, step + 1, is_first, scratch, sink);
      steps_[step]->cut(text, is_first, scratch, next);
    }
  }

  std::vector<std::unique_ptr<PreTokenizer>> steps_;
};

using Steps = std::vector<std::unique_ptr<PreTokenizer>>;

void add_steps(const Component& component, Steps& steps, bool& byte_level) {
  if (byte_level) component.refuse("comes after ByteLevel, which must be the last");
  const auto add = [&](std::string_view pattern, Behavior behavior, bool invert = false) {
    steps.push_back(std::make_unique<Split>(pattern, behavior, invert));
  };
  const std::string& type = component.type();
  if (type == "Sequence") {
    for (const Component& step : component.list("pretokenizers")) add_steps(step, steps, byte_level);
  } else if (type == "Split") {
    const auto pattern = component.pattern();
    if (pattern.text.empty()) component.refuse("the pattern is empty");
    add(pattern.is_regex ? pattern.text : escaped(pattern.text), behavior_of(component, "Isolated"),
        component.flag("invert", false));
  } else if (type == "ByteLevel") {
    if (component.flag("add_prefix_space", true)) steps.push_back(std::make_unique<Prefix>(" "));
    if (component.flag("use_regex", true)) add(kByteLevelPattern, Behavior::isolated);
    byte_level = true;
  } else if (type == "Digits") {
    add(R"(\p{N})", component.flag("individual_digits", false) ? Behavior::isolated : Behavior::contiguous);
  } else if (type == "Punctuation") {
    add(R"([\p{P}!-/:-@\[-`{-~])", behavior_of(component, "Isolated"));
  } else if (type == "Whitespace") {
    add(R"(\w+|[^\w\s]+)", Behavior::removed, true);
  } else if (type == "WhitespaceSplit") {
    add(R"(\s)", Behavior::removed);
  } else if (type == "Metaspace") {
    const std::string scheme =
        component.text("prepend_scheme", component.flag("add_prefix_space", true) ? "always" : "never");
    if (scheme != "always" && scheme != "first" && scheme != "never") component.refuse("prepend_scheme " + scheme);
    steps.push_back(std::make_unique<Metaspace>(component.text("replacement", "▁"),
                                                scheme == "always"  ? Metaspace::Scheme::always
                                                : scheme == "first" ? Metaspace::Scheme::first
                                                                    : Metaspace::Scheme::never,
                                                component.flag("split", true)));
  } else {
    component.refuse_type(
        "Split, ByteLevel, Digits, Punctuation, Whitespace, WhitespaceSplit, Metaspace and Sequence of these");
  }
}

PreTokenization chained(Steps steps, bool byte_level) {
  PreTokenization result;
  result.byte_level = byte_level;
  if (steps.size() == 1) {
    result.cut = std::move(steps[0]);
  } else if (!steps.empty()) {
    result.cut = std::make_unique<SequencePreTokenizer>(std::move(steps));
  }
  return result;
}

}  // namespace

PreTokenization parse_pre_tokenizer(const nlohmann::json& json, const std::string& where) {
  Steps steps;
  bool byte_level = false;
  if (!json.is_null()) add_steps(Component(json, where + ": pre_tokenizer"), steps, byte_level);
  return chained(std::move(steps), byte_level);
}

PreTokenization byte_level_pre_tokenization(std::string_view pattern) {
  Steps steps;
  steps.push_back(std::make_unique<Split>(pattern, Behavior::isolated, false));
  return chained(std::move(steps), true);
}

}  // namespace farskip
