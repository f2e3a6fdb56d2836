#include "data/vocabulary_record.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"
#include "data/byte_tokenizer.h"

namespace farskip {

std::string vocabulary_record_path(const std::string& data_prefix) { return data_prefix + ".tokenizer"; }

void write_vocabulary_record(const std::string& data_prefix, const VocabularyRecord& record) {
  const nlohmann::ordered_json json = {
      {"tokenizer", record.tokenizer}, {"num_ids", record.num_ids}, {"end_of_document", record.end_of_document}};
  write_file(vocabulary_record_path(data_prefix), json.dump(1) + "\n");
}

VocabularyRecord read_vocabulary_record(const std::string& data_prefix) {
  const std::string path = vocabulary_record_path(data_prefix);
  if (!std::filesystem::exists(path)) return {"bytes", ByteTokenizer::kNumIds, ByteTokenizer::kEndOfDocument};
  try {
    const auto json = nlohmann::json::parse(read_file(path));
    return {json.at("tokenizer").get<std::string>(), json.at("num_ids").get<int64_t>(),
            json.at("end_of_document").get<int32_t>()};
  } catch (const nlohmann::json::exception& error) {
    fail("{}: {}; prepare the data set again", path, error.what());
  }
}

}  // namespace farskip
