#include "tokenizer/tokenizer_config.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"

namespace farskip {
namespace {

/// "TOKEN" or {"content": "TOKEN", ...}; null and absence are empty.
std::string token_text(const nlohmann::json& config, const char* key, const std::string& path) {
  const auto found = config.find(key);
  if (found == config.end() || found->is_null()) return "";
  if (found->is_string()) return found->get<std::string>();
  if (found->is_object() && found->contains("content") && (*found)["content"].is_string()) {
    return (*found)["content"].get<std::string>();
  }
  fail("{}: {} = {}; a string or an object with \"content\" is expected", path, key, found->dump());
}

bool flag(const nlohmann::json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_boolean() && found->get<bool>();
}

/// A string, or the one named "default" of a list.
std::string template_text(const nlohmann::json& config) {
  const auto found = config.find("chat_template");
  if (found == config.end()) return "";
  if (found->is_string()) return found->get<std::string>();
  if (found->is_array()) {
    for (const auto& item : *found) {
      if (item.value("name", "") == "default") return item.value("template", "");
    }
  }
  return "";
}

}  // namespace

TokenizerConfig read_tokenizer_config(const std::string& folder) {
  namespace fs = std::filesystem;
  TokenizerConfig result;
  const std::string path = (fs::path(folder) / "tokenizer_config.json").string();
  if (fs::exists(path)) {
    result.path = path;
    nlohmann::json config;
    try {
      config = nlohmann::json::parse(read_file(path));
    } catch (const nlohmann::json::exception& error) {
      fail("{}: no JSON: {}", path, error.what());
    }
    if (!config.is_object()) fail("{}: a JSON object is expected", path);
    result.bos_token = token_text(config, "bos_token", path);
    result.eos_token = token_text(config, "eos_token", path);
    result.pad_token = token_text(config, "pad_token", path);
    result.unk_token = token_text(config, "unk_token", path);
    if (config.contains("tokenizer_class") && config["tokenizer_class"].is_string()) {
      result.tokenizer_class = config["tokenizer_class"].get<std::string>();
    }
    result.add_bos_token = flag(config, "add_bos_token");
    result.add_eos_token = flag(config, "add_eos_token");
    result.chat_template = template_text(config);
    const auto added_tokens = config.value("added_tokens_decoder", nlohmann::json::object());
    for (const auto& [key, token] : added_tokens.items()) {
      AddedToken added;
      const auto [end, status] = std::from_chars(key.data(), key.data() + key.size(), added.id);
      if (status != std::errc() || end != key.data() + key.size() || added.id < 0 || !token.is_object() ||
          !token.contains("content") || !token["content"].is_string()) {
        fail("{}: added_tokens_decoder {} = {}; an id with an object that has \"content\" is expected", path, key,
             token.dump());
      }
      added.content = token["content"].get<std::string>();
      added.special = flag(token, "special");
      added.single_word = flag(token, "single_word");
      added.lstrip = flag(token, "lstrip");
      added.rstrip = flag(token, "rstrip");
      added.normalized = flag(token, "normalized");
      result.added_tokens.push_back(std::move(added));
    }
    std::sort(result.added_tokens.begin(), result.added_tokens.end(),
              [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  }
  const std::string jinja = (fs::path(folder) / "chat_template.jinja").string();
  if (fs::exists(jinja)) result.chat_template = read_file(jinja);
  return result;
}

}  // namespace farskip
