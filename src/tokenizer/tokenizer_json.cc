#include "tokenizer/tokenizer_json.h"

#include <functional>
#include <sstream>

#include "base/error.h"
#include "base/files.h"
#include "tokenizer/bpe_tokenizer.h"
#include "tokenizer/components.h"
#include "tokenizer/vocabulary_file.h"

namespace farskip {
namespace {

const nlohmann::json kNull;

const nlohmann::json& member(const nlohmann::json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() ? kNull : *found;
}

std::vector<AddedToken> added_tokens(const nlohmann::json& document, const std::string& path) {
  std::vector<AddedToken> tokens;
  const auto& list = member(document, "added_tokens");
  if (list.is_null()) return tokens;
  try {
    for (const auto& item : list) {
      tokens.push_back({item.at("id").get<int32_t>(), item.at("content").get<std::string>(),
                        item.value("special", false), item.value("single_word", false), item.value("lstrip", false),
                        item.value("rstrip", false), item.value("normalized", !item.value("special", false))});
      if (tokens.back().id < 0 || tokens.back().id > kMaxTokenId)
        fail("{}: added_tokens: the id {}", path, tokens.back().id);
    }
  } catch (const nlohmann::json::exception& error) {
    fail("{}: added_tokens: {}", path, error.what());
  }
  return tokens;
}

/// The model's own flags.
void read_model(const Component& model, BpeParts& parts) {
  if (model.type() != "BPE") model.refuse_type("BPE (SentencePiece's unigram: from tokenizer.model)");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!model.text(key, "").empty()) model.refuse(fmt::format("{} is not supported", key));
  }
  const auto& dropout = member(model.json(), "dropout");
  if (!dropout.is_null() && dropout != 0.0) model.refuse("dropout is not supported");
  parts.ignore_merges = model.flag("ignore_merges", false);
  parts.byte_fallback = model.flag("byte_fallback", false);
  parts.fuse_unk = model.flag("fuse_unk", false);
  const std::string unk = model.text("unk_token", "");
  if (unk.empty()) return;
  parts.unk = TokenMap(parts.tokens).find(unk);
  if (parts.unk < 0) model.refuse(fmt::format("unk_token {} is not in the vocabulary", unk));
}

/// Ids that a post-processor puts around a text.
void read_post_processor(const nlohmann::json& json, const std::string& where, BpeTokenizerParts& parts) {
  if (json.is_null()) return;
  const Component component(json, where + ": post_processor");
  if (component.type() == "Sequence") {
    for (const Component& step : component.list("processors")) read_post_processor(step.json(), where, parts);
    return;
  }
  if (component.type() == "ByteLevel") return;  // moves offsets only
  if (component.type() != "TemplateProcessing") component.refuse_type("TemplateProcessing, ByteLevel, Sequence");
  std::vector<int32_t> around[2];
  bool behind = false;
  try {
    for (const auto& piece : json.at("single")) {
      if (piece.contains("Sequence")) {
        if (behind || piece["Sequence"].at("id") != "A") component.refuse("single: one sequence, A, is expected");
        behind = true;
        continue;
      }
      const auto& name = piece.at("SpecialToken").at("id").get_ref<const std::string&>();
      for (const auto& id : json.at("special_tokens").at(name).at("ids")) around[behind].push_back(id.get<int32_t>());
    }
  } catch (const nlohmann::json::exception& error) {
    component.refuse(error.what());
  }
  if (!behind) component.refuse("single: one sequence, A, is expected");
  // The outer one's ids come farther out.
  parts.prefix.insert(parts.prefix.begin(), around[0].begin(), around[0].end());
  parts.suffix.insert(parts.suffix.end(), around[1].begin(), around[1].end());
}

/// Where files name no end of text, GPT-2's is taken if the vocabulary has it.
void complete(TokenizerConfig& config, const BpeTokenizerParts& parts) {
  constexpr std::string_view kEnd = "<|endoftext|>";
  if (!config.eos_token.empty() || !config.path.empty()) return;
  for (const AddedToken& token : parts.added_tokens) {
    if (token.special && token.content == kEnd) config.eos_token = config.bos_token = kEnd;
  }
}

}  // namespace

std::unique_ptr<Tokenizer> load_tokenizer_json(const std::string& path, TokenizerConfig config) {
  VocabularyCollector vocabulary(path);
  const nlohmann::json document = parse_json_file(path, std::ref(vocabulary));
  if (!document.is_object() || !document.contains("model"))
    fail("{}: no tokenizer: an object with \"model\" is expected", path);
  BpeTokenizerParts parts;
  vocabulary.finish(parts.model);
  const Component model(document["model"], path + ": model");
  if (model.json().contains("vocab") && !model.json()["vocab"].is_object()) {
    if (model.type() == "BPE") model.refuse("vocab is no object");
  }
  read_model(model, parts.model);
  if (parts.model.tokens.empty()) model.refuse("the vocabulary is empty");
  parts.added_tokens = added_tokens(document, path);
  for (const AddedToken& token : parts.added_tokens) {
    const auto id = static_cast<size_t>(token.id);
    if (id < parts.model.tokens.size() && !parts.model.tokens[id].empty() && parts.model.tokens[id] != token.content) {
      fail("{}: the id {} is {} in the vocabulary and {} among the added tokens", path, id, parts.model.tokens[id],
           token.content);
    }
  }
  parts.normalizer = parse_normalizer(member(document, "normalizer"), path);
  parts.pre_tokenization = parse_pre_tokenizer(member(document, "pre_tokenizer"), path);
  parts.decoder = TokenDecoder(member(document, "decoder"), path);
  read_post_processor(member(document, "post_processor"), path, parts);
  complete(config, parts);
  const std::string kind = parts.pre_tokenization.byte_level ? "byte-level BPE" : "BPE of characters";
  return std::make_unique<BpeTokenizer>(std::move(parts), std::move(config), kind + " of " + path, path);
}

std::unique_ptr<Tokenizer> load_gpt2(const std::string& vocabulary, const std::string& merges, TokenizerConfig config) {
  const nlohmann::json tokens = parse_json_file(vocabulary);
  if (!tokens.is_object()) fail("{}: a JSON object of ids by token is expected", vocabulary);
  VocabularyCollector collector(vocabulary);
  for (const auto& [token, id] : tokens.items()) collector.add_token(token, id);
  std::istringstream lines(read_file(merges));
  for (std::string line; std::getline(lines, line);) {
    if (line.ends_with('\r')) line.pop_back();
    if (!line.empty() && !line.starts_with("#version")) collector.add_merge(line);
  }
  BpeTokenizerParts parts;
  collector.finish(parts.model);
  parts.pre_tokenization = byte_level_pre_tokenization(kByteLevelPattern);
  parts.added_tokens = config.added_tokens;
  const int32_t end = TokenMap(parts.model.tokens).find("<|endoftext|>");
  if (parts.added_tokens.empty() && end >= 0) parts.added_tokens.push_back({end, "<|endoftext|>", true});
  complete(config, parts);
  return std::make_unique<BpeTokenizer>(std::move(parts), std::move(config), "byte-level BPE of " + vocabulary,
                                        vocabulary);
}

}  // namespace farskip
