#include "data/vocabulary_record.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"
#include "data/byte_tokenizer.h"
#include "tokenizer/tokenizer.h"

namespace farskip {

namespace fs = std::filesystem;

std::string vocabulary_record_path(const std::string& data_prefix) { return data_prefix + ".tokenizer"; }

void write_vocabulary_record(const std::string& data_prefix, const VocabularyRecord& record) {
  const nlohmann::ordered_json json = {
      {"tokenizer", record.tokenizer}, {"num_ids", record.num_ids}, {"end_of_document", record.end_of_document}};
  write_file(vocabulary_record_path(data_prefix), json.dump(1) + "\n");
}

VocabularyRecord read_vocabulary_record(const std::string& data_prefix) {
  const std::string path = vocabulary_record_path(data_prefix);
  if (!fs::exists(path)) return {"bytes", ByteTokenizer::kNumIds, ByteTokenizer::kEndOfDocument};
  try {
    const auto json = nlohmann::json::parse(read_file(path));
    return {json.at("tokenizer").get<std::string>(), json.at("num_ids").get<int64_t>(),
            json.at("end_of_document").get<int32_t>()};
  } catch (const nlohmann::json::exception& error) {
    fail("{}: {}; prepare the data set again", path, error.what());
  }
}

std::string vocabulary_folder(const std::string& data_prefix) { return data_prefix + ".vocabulary"; }

std::string common_vocabulary(const std::vector<std::string>& data_prefixes) {
  for (const std::string& prefix : data_prefixes) {
    if (!fs::exists(vocabulary_record_path(prefix)) || !has_tokenizer(vocabulary_folder(prefix))) return "";
    const VocabularyRecord record = read_vocabulary_record(prefix), first = read_vocabulary_record(data_prefixes[0]);
    if (record.num_ids != first.num_ids || record.end_of_document != first.end_of_document) return "";
  }
  return data_prefixes.empty() ? "" : data_prefixes[0];
}

VocabularyCopy::VocabularyCopy(const std::string& data_prefix, const std::string& tokenizer)
    : folder_(vocabulary_folder(data_prefix)), aside_(folder_ + ".tmp") {
  fs::remove_all(aside_);
  fs::create_directory(aside_);
  try {
    copy_tokenizer(tokenizer, aside_);
  } catch (...) {
    fs::remove_all(aside_);
    throw;
  }
}

VocabularyCopy::~VocabularyCopy() {
  std::error_code ignored;
  fs::remove_all(aside_, ignored);
}

void VocabularyCopy::publish() {
  fs::remove_all(folder_);
  fs::rename(aside_, folder_);
}

}  // namespace farskip
