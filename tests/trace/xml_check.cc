#include "xml_check.h"

#include <cctype>
#include <functional>
#include <stdexcept>

namespace farskip {
namespace {

using Attributes = std::map<std::string, std::string>;

class Parser {
 public:
  Parser(const std::string& xml, std::function<void(const std::string&, const Attributes&)> on_element)
      : xml_(xml), on_element_(std::move(on_element)) {}

  void parse() {
    std::vector<std::string> open;
    while (at_ < xml_.size()) {
      if (xml_[at_] != '<') {
        character();
      } else if (xml_.compare(at_, 2, "</") == 0) {
        at_ += 2;
        const std::string tag = name();
        if (open.empty() || open.back() != tag) error("</" + tag + "> closes nothing");
        open.pop_back();
        expect('>');
      } else {
        ++at_;
        const std::string tag = name();
        Attributes attributes;
        while (skip_space(), xml_.at(at_) != '>' && xml_.at(at_) != '/') attribute(attributes);
        on_element_(tag, attributes);
        if (xml_[at_] == '/') {
          ++at_;
        } else {
          open.push_back(tag);
        }
        expect('>');
      }
    }
    if (!open.empty()) error("<" + open.back() + "> stays open");
  }

 private:
  [[noreturn]] void error(const std::string& what) const {
    throw std::runtime_error(what + " near '" + xml_.substr(at_ < 30 ? 0 : at_ - 30, 60) + "'");
  }
  void expect(char c) {
    if (xml_.at(at_++) != c) error(std::string("expected ") + c);
  }
  void skip_space() {
    while (std::isspace(static_cast<unsigned char>(xml_.at(at_)))) ++at_;
  }
  std::string name() {
    const size_t begin = at_;
    while (std::isalnum(static_cast<unsigned char>(xml_.at(at_))) || xml_[at_] == '-' || xml_[at_] == ':') ++at_;
    if (at_ == begin) error("a name is missing");
    return xml_.substr(begin, at_ - begin);
  }
  void attribute(Attributes& attributes) {
    const std::string key = name();
    expect('=');
    expect('"');
    const size_t begin = at_;
    while (xml_.at(at_) != '"') character();
    if (!attributes.emplace(key, xml_.substr(begin, at_ - begin)).second) error("a second " + key);
    ++at_;
  }
  void character() {
    const unsigned char c = static_cast<unsigned char>(xml_.at(at_));
    if (c == '<') error("a bare <");
    if (c < 0x20 && c != '\n' && c != '\t') error("a control character");
    if (c == '&') {
      for (const char* entity : {"&amp;", "&lt;", "&gt;", "&quot;", "&#39;"}) {
        if (xml_.compare(at_, std::string(entity).size(), entity) == 0) {
          ++at_;
          return;
        }
      }
      error("a bare &");
    }
    ++at_;
  }

  const std::string& xml_;
  std::function<void(const std::string&, const Attributes&)> on_element_;
  size_t at_ = 0;
};

}  // namespace

std::string xml_error(const std::string& xml) {
  try {
    Parser(xml, [](const auto&, const auto&) {}).parse();
    return "";
  } catch (const std::exception& error) {
    return error.what();
  }
}

std::vector<Attributes> elements(const std::string& xml, const std::string& name) {
  std::vector<Attributes> found;
  Parser(xml, [&](const std::string& tag, const Attributes& attributes) {
    if (tag == name) found.push_back(attributes);
  }).parse();
  return found;
}

}  // namespace farskip
