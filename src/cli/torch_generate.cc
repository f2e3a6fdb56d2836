// farskip generate DIR --prompt TEXT: continue a prompt with a trained model.

#include <cstdio>
#include <memory>

#include "cli/command.h"
#include "data/byte_tokenizer.h"
#include "infer/generate.h"

namespace farskip::cli {

void add_generate(CLI::App& app) {
  struct Arguments {
    std::string model, prompt;
    GenerateOptions options;
  };
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("generate", "Continue a prompt with a model of byte tokens");
  command->add_option("model", arguments->model, "Hugging Face folder, as `farskip train` saves it")->required();
  command->add_option("--prompt", arguments->prompt, "Text to continue")->required();
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
    std::printf("%s", arguments->prompt.c_str());
    generate(arguments->model, ByteTokenizer::encode(arguments->prompt), ByteTokenizer::kEndOfDocument,
             arguments->options, [](int32_t token) {
               std::printf("%s", ByteTokenizer::decode(std::vector<int32_t>{token}).c_str());
               std::fflush(stdout);
             });
    std::printf("\n");
  });
}

}  // namespace farskip::cli
