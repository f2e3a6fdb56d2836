#include "cli/torch_served_model.h"

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "data/byte_tokenizer.h"

namespace farskip::cli {
namespace {

std::function<std::string(std::span<const ChatMessage>)> chat_renderer(const ModelText& text, const std::string& file) {
  const TokenizerConfig config = text.tokenizer() ? text.tokenizer()->config() : TokenizerConfig{};
  const std::string source = file.empty() ? config.chat_template : read_file(file);
  if (source.empty()) return nullptr;
  try {
    const auto templ = ChatTemplate::of(source, file.empty() ? "the model's tokenizer" : file);
    return [templ, config](std::span<const ChatMessage> messages) { return templ.render(messages, config, true).text; };
  } catch (const Error& error) {
    if (!file.empty()) throw;
    log_warning(fmt::format("{}; chats are refused", error.what()));
    return nullptr;
  }
}

}  // namespace

serve::ServedModel served_model(const ModelText& text, const ModelConfig& config, const std::string& chat_template) {
  serve::ServedModel model;
  model.vocab_size = config.vocab_size;
  model.encode = [&text](const std::string& words, bool add_special) { return text.encode(words, add_special); };
  model.decoder = [&text] { return text.decoder(); };
  model.token_bytes = [tokenizer = text.tokenizer()](int32_t id) {
    return tokenizer ? tokenizer->bytes_of(id, false) : ByteTokenizer::decode(std::vector<int32_t>{id});
  };
  model.render_chat = chat_renderer(text, chat_template);
  return model;
}

}  // namespace farskip::cli
