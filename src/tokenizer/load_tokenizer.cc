#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/files.h"
#include "tokenizer/sentencepiece_tokenizer.h"
#include "tokenizer/tiktoken.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/tokenizer_json.h"

namespace farskip {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kKnown =
    "known are tokenizer.json, *.tiktoken and tiktoken.model, *.model (SentencePiece), and vocab.json or encoder.json "
    "with merges.txt or vocab.bpe beside it";

bool is_tiktoken(const fs::path& path) {
  return path.extension() == ".tiktoken" || path.filename() == "tiktoken.model";
}

/// The vocabulary of a folder, in the order of load_tokenizer's contract; empty where there is none.
fs::path vocabulary_in(const fs::path& folder) {
  if (fs::exists(folder / "tokenizer.json")) return folder / "tokenizer.json";
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  const auto first = [&](const auto& wanted) {
    const auto found = std::find_if(files.begin(), files.end(), wanted);
    return found == files.end() ? fs::path() : *found;
  };
  if (const auto file = first(is_tiktoken); !file.empty()) return file;
  if (fs::exists(folder / "tokenizer.model")) return folder / "tokenizer.model";
  if (const auto file = first([](const fs::path& path) { return path.extension() == ".model"; }); !file.empty())
    return file;
  return first(
      [](const fs::path& path) { return path.filename() == "vocab.json" || path.filename() == "encoder.json"; });
}

/// The vocabulary itself.
fs::path find_vocabulary(const std::string& folder_or_file) {
  const fs::path path = folder_or_file;
  if (!fs::exists(path)) fail("tokenizer {} does not exist", folder_or_file);
  if (!fs::is_directory(path)) return path;
  const fs::path found = vocabulary_in(path);
  if (found.empty()) fail("{} holds no vocabulary; {}", folder_or_file, kKnown);
  return found;
}

fs::path folder_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

bool is_gpt2(const fs::path& path) { return path.filename() == "vocab.json" || path.filename() == "encoder.json"; }

/// Under which vocabulary_in finds a copy.
std::string name_of_copy(const fs::path& vocabulary) {
  if (vocabulary.extension() == ".json" && !is_gpt2(vocabulary)) return "tokenizer.json";
  return vocabulary.filename();
}

}  // namespace

bool has_tokenizer(const std::string& folder) { return fs::is_directory(folder) && !vocabulary_in(folder).empty(); }

std::unique_ptr<Tokenizer> load_tokenizer(const std::string& folder_or_file) {
  const fs::path path = find_vocabulary(folder_or_file);
  const fs::path folder = folder_of(path);
  TokenizerConfig config = read_tokenizer_config(folder.string());
  if (is_tiktoken(path)) return load_tiktoken(path.string(), std::move(config));
  if (path.extension() == ".model") return load_sentencepiece(path.string(), std::move(config));
  if (is_gpt2(path)) {
    for (const char* merges : {"merges.txt", "vocab.bpe"}) {
      if (fs::exists(folder / merges)) return load_gpt2(path.string(), (folder / merges).string(), std::move(config));
    }
    fail("{}: no merges.txt or vocab.bpe stands beside it", path.string());
  }
  if (path.extension() == ".json") return load_tokenizer_json(path.string(), std::move(config));
  fail("{} is no vocabulary of a known kind; {}", path.string(), kKnown);
}

std::vector<std::string> copy_tokenizer(const std::string& folder_or_file, const std::string& to) {
  const fs::path vocabulary = find_vocabulary(folder_or_file);
  std::vector<std::string> names = {name_of_copy(vocabulary)};
  write_file(fs::path(to) / names[0], read_file(vocabulary));
  std::vector<const char*> others = {"tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json",
                                     "added_tokens.json"};
  if (is_gpt2(vocabulary)) others.insert(others.end(), {"merges.txt", "vocab.bpe"});
  for (const char* name : others) {
    const fs::path from = folder_of(vocabulary) / name;
    if (!fs::exists(from)) continue;
    write_file(fs::path(to) / name, read_file(from));
    names.push_back(name);
  }
  return names;
}

}  // namespace farskip
