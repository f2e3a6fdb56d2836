// farskip generate DIR --prompt TEXT: continue a prompt with a trained model.

#include <cstdio>
#include <memory>

#include "cli/command.h"
#include "data/byte_tokenizer.h"
#include "infer/generate.h"
#include "tokenizer/tokenizer.h"

namespace farskip::cli {

void add_generate(CLI::App& app) {
  struct Arguments {
    std::string model, prompt, tokenizer;
    GenerateOptions options;
  };
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("generate", "Continue a prompt with a model");
  command->add_option("model", arguments->model, "Hugging Face folder, as `farskip train` saves it")->required();
  command->add_option("--prompt", arguments->prompt, "Text to continue")->required();
  command->add_option("--tokenizer", arguments->tokenizer, "A model's folder or its vocabulary; without: bytes");
  command->add_option("--max-tokens", arguments->options.max_tokens, "Tokens to make at most")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->add_option("--temperature", arguments->options.temperature, "0: always the likeliest token")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command->add_option("--seed", arguments->options.seed, "Of the random draws")->capture_default_str();
  command->add_option("--context", arguments->options.context, "Tokens the model sees at most")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->callback([arguments] {
    const auto print = [](const std::string& text) {
      std::printf("%s", text.c_str());
      std::fflush(stdout);
    };
    print(arguments->prompt);
    if (arguments->tokenizer.empty()) {
      generate(arguments->model, ByteTokenizer::encode(arguments->prompt), ByteTokenizer::kEndOfDocument,
               arguments->options, [&](int32_t token) { print(ByteTokenizer::decode(std::vector<int32_t>{token})); });
    } else {
      const auto tokenizer = load_tokenizer(arguments->tokenizer);
      StreamDecoder text(*tokenizer, true);
      generate(arguments->model, tokenizer->encode(arguments->prompt), tokenizer->eos(), arguments->options,
               [&](int32_t token) { print(text.push(token)); });
      print(text.finish());
    }
    std::printf("\n");
  });
}

}  // namespace farskip::cli
