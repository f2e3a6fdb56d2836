// farskip tokenizer train TEXT ... | encode DIR | decode DIR: vocabularies, text to token ids and back.

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <memory>
#include <sstream>
#include <vector>

#include "base/error.h"
#include "base/files.h"
#include "cli/command.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/train_bpe.h"

namespace farskip::cli {
namespace {

void add_tokenizer_train(CLI::App& parent) {
  struct Arguments {
    TrainBpeOptions options;
    std::string output;
  };
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = parent.add_subcommand("train", "Learn a byte-level BPE vocabulary and write its tokenizer.json");
  command->add_option("texts", arguments->options.inputs, "Text files; - reads standard input")->required();
  command->add_option("-o,--output", arguments->output, "The tokenizer.json to write")->required();
  command->add_option("--vocab-size", arguments->options.vocab_size, "Ids in all, the 256 bytes among them")
      ->required();
  command->add_option("--special-tokens", arguments->options.special_tokens, "They get the first ids")
      ->capture_default_str();
  command->add_option("--pattern", arguments->options.pattern, "Expression that cuts text into pieces (GPT-2's)");
  command->add_option("--min-frequency", arguments->options.min_frequency, "Rarer pairs are not merged")
      ->capture_default_str();
  command->callback([arguments] {
    create_parent_folders(arguments->output);
    const BpeVocabulary vocabulary = train_bpe(arguments->options);
    write_file(arguments->output, tokenizer_json(vocabulary));
    std::printf("%s\n  ids        %zu (%zu merges)\n  text       %lld bytes, %lld different pieces\n",
                arguments->output.c_str(), vocabulary.tokens.size(), vocabulary.merges.size(),
                static_cast<long long>(vocabulary.num_bytes), static_cast<long long>(vocabulary.num_words));
  });
}

struct Arguments {
  std::string tokenizer, input = "-";
  bool special = false, null = false;
};

Arguments& common_options(CLI::App& command, const std::shared_ptr<Arguments>& arguments) {
  command.add_option("tokenizer", arguments->tokenizer, "A model's folder, or its tokenizer.json or other vocabulary")
      ->required();
  command.add_option("input", arguments->input, "File to read; - is standard input")->capture_default_str();
  return *arguments;
}

std::string input_text(const std::string& path) { return read_file(path == "-" ? "/dev/stdin" : path); }

void add_tokenizer_encode(CLI::App& parent) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = parent.add_subcommand("encode", "Print the token ids of a text");
  Arguments& common = common_options(*command, arguments);
  command->add_flag("--add-special-tokens", common.special, "With the ids that the format puts around a text");
  command->add_flag("--null", common.null, "Each NUL byte ends a text; the ids of one text are a line");
  command->callback([arguments] {
    const auto tokenizer = load_tokenizer(arguments->tokenizer);
    const std::string text = input_text(arguments->input);
    std::string lines;
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = arguments->null ? std::min(text.find('\0', begin), text.size()) : text.size();
      const auto ids = tokenizer->encode(std::string_view(text).substr(begin, end - begin), arguments->special);
      lines += fmt::format("{}\n", fmt::join(ids, " "));
      begin = end + 1;
    }
    print(lines);
  });
}

void add_tokenizer_decode(CLI::App& parent) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = parent.add_subcommand("decode", "Print the text of token ids");
  Arguments& common = common_options(*command, arguments);
  command->add_flag("--skip-special-tokens", common.special, "Leave special tokens out");
  command->add_flag("--null", common.null, "Each line of ids is a text; a NUL byte ends each");
  command->callback([arguments] {
    const auto tokenizer = load_tokenizer(arguments->tokenizer);
    std::istringstream lines(input_text(arguments->input));
    std::vector<int32_t> ids;
    for (std::string line; std::getline(lines, line);) {
      std::istringstream words(line);
      for (std::string word; words >> word;) {
        int32_t id = -1;
        const auto [end, status] = std::from_chars(word.data(), word.data() + word.size(), id);
        if (status != std::errc() || end != word.data() + word.size()) {
          fail("{}: \"{}\" is no token id; ids are integers with white space between them", arguments->input, word);
        }
        ids.push_back(id);
      }
      if (!arguments->null) continue;
      print(tokenizer->decode(ids, arguments->special) + '\0');
      ids.clear();
    }
    if (!arguments->null) print(tokenizer->decode(ids, arguments->special));
  });
}

}  // namespace

void add_tokenizer(CLI::App& app) {
  CLI::App* command = app.add_subcommand("tokenizer", "Make vocabularies; turn text into token ids and back");
  command->require_subcommand(1);
  add_tokenizer_train(*command);
  add_tokenizer_encode(*command);
  add_tokenizer_decode(*command);
}

}  // namespace farskip::cli
