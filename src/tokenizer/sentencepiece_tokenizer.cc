#include "tokenizer/sentencepiece_tokenizer.h"

#include <sentencepiece_processor.h>

#include <algorithm>

#include "base/error.h"
#include "base/files.h"
#include "tokenizer/utf8.h"

namespace farskip {
namespace {

class SentencePieceTokenizer : public Tokenizer {
 public:
  SentencePieceTokenizer(std::unique_ptr<sentencepiece::SentencePieceProcessor> model, std::vector<AddedToken> added,
                         TokenizerConfig config, std::string description)
      : Tokenizer(std::move(config), std::move(description)),
        model_(std::move(model)),
        added_(std::move(added), nullptr) {}

  using Tokenizer::encode;
  void encode(std::string_view text, std::vector<int32_t>& ids, bool add_special) const override {
    std::string repaired;
    if (!is_utf8(text)) text = repaired = replace_invalid_utf8(text);
    MatchScratch scratch;
    if (add_special && config().add_bos_token && bos() >= 0) ids.push_back(bos());
    added_.cut(text, false, scratch, [&](std::string_view part, int32_t id) {
      if (id >= 0) {
        ids.push_back(id);
        return;
      }
      std::vector<int> pieces;
      const auto status = model_->Encode(absl::string_view(part.data(), part.size()), &pieces);
      if (!status.ok()) fail("{}: SentencePiece: {}", description(), status.ToString());
      ids.insert(ids.end(), pieces.begin(), pieces.end());
    });
    if (add_special && config().add_eos_token && eos() >= 0) ids.push_back(eos());
  }

  std::string decode(std::span<const int32_t> ids, bool skip_special) const override {
    std::vector<std::string> run;
    std::string text;
    bool is_first = true;
    const auto end_run = [&] {
      if (run.empty()) return;
      // The library drops the space it has put before a text; behind another token it is one of the text.
      std::string part;
      const auto status = model_->Decode(run, &part);
      if (!status.ok()) fail("{}: SentencePiece: {}", description(), status.ToString());
      const bool space = !is_first && run[0].starts_with(kSpace) && !part.starts_with(' ');
      text += space ? " " + part : part;
      run.clear();
      is_first = false;
    };
    for (const int32_t id : ids) {
      if (const AddedToken* added = added_.find(id)) {
        if (skip_special && added->special) continue;
        end_run();
        text += added->content;
        is_first = false;
      } else if (id >= 0 && id < model_->GetPieceSize()) {
        run.push_back(model_->IdToPiece(id));
      }
    }
    end_run();
    return text;
  }

  std::string bytes_of(int32_t id, bool is_first) const override {
    if (const AddedToken* added = added_.find(id)) return added->content;
    if (id < 0 || id >= model_->GetPieceSize()) return "";
    const std::string& piece = model_->IdToPiece(id);
    if (model_->IsByte(id)) return std::string(1, static_cast<char>(std::stoi(piece.substr(3, 2), nullptr, 16)));
    if (model_->IsUnknown(id)) return " \u2047 ";  // the library's spelling
    std::string text;
    std::string_view rest = piece;
    if (is_first && rest.starts_with(kSpace)) rest.remove_prefix(kSpace.size());
    while (!rest.empty()) {
      if (rest.starts_with(kSpace)) {
        text += ' ';
        rest.remove_prefix(kSpace.size());
      } else {
        text += rest[0];
        rest.remove_prefix(1);
      }
    }
    return text;
  }

  int64_t num_ids() const override { return std::max<int64_t>(model_->GetPieceSize(), added_.max_id() + 1); }
  int32_t id_of(std::string_view token) const override {
    if (const int32_t id = added_.id_of(token); id >= 0) return id;
    const int id = model_->PieceToId(absl::string_view(token.data(), token.size()));
    return model_->IsUnknown(id) && model_->IdToPiece(id) != token ? -1 : id;
  }
  std::string token_of(int32_t id) const override {
    if (const AddedToken* added = added_.find(id)) return added->content;
    return id >= 0 && id < model_->GetPieceSize() ? model_->IdToPiece(id) : "";
  }
  bool is_special(int32_t id) const override {
    const AddedToken* added = added_.find(id);
    return added != nullptr && added->special;
  }

 private:
  static constexpr std::string_view kSpace = "▁";

  std::unique_ptr<sentencepiece::SentencePieceProcessor> model_;
  AddedTokens added_;
};

}  // namespace

std::unique_ptr<Tokenizer> load_sentencepiece(const std::string& path, TokenizerConfig config) {
  auto model = std::make_unique<sentencepiece::SentencePieceProcessor>();
  const std::string bytes = read_file(path);
  const auto status = model->LoadFromSerializedProto(absl::string_view(bytes.data(), bytes.size()));
  if (!status.ok()) fail("{}: no model of SentencePiece: {}", path, status.ToString());
  std::vector<AddedToken> added = config.added_tokens;
  for (AddedToken& token : added) token.normalized = false;
  for (int id = 0; id < model->GetPieceSize(); ++id) {
    const bool listed =
        std::any_of(added.begin(), added.end(), [&](const AddedToken& token) { return token.id == id; });
    if (model->IsControl(id) && !listed) added.push_back({id, model->IdToPiece(id), true});
  }
  if (config.path.empty()) {
    if (model->bos_id() >= 0) config.bos_token = model->IdToPiece(model->bos_id());
    if (model->eos_id() >= 0) config.eos_token = model->IdToPiece(model->eos_id());
    config.add_bos_token = true;
  }
  return std::make_unique<SentencePieceTokenizer>(std::move(model), std::move(added), std::move(config),
                                                  "SentencePiece model of " + path);
}

}  // namespace farskip
