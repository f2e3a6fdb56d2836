// farskip prepare INPUT ... -o PREFIX: text to Megatron's indexed format.

#include <cstdio>
#include <map>
#include <memory>

#include "cli/command.h"
#include "data/prepare.h"

namespace farskip::cli {

void add_prepare(CLI::App& app) {
  auto options = std::make_shared<PrepareOptions>();
  CLI::App* command = app.add_subcommand("prepare", "Turn text into Megatron's indexed format (.bin and .idx)");
  command->add_option("inputs", options->inputs, "Text or JSONL files; - reads standard input")->required();
  command->add_option("-o,--output-prefix", options->output_prefix, "PREFIX_text_document.bin and .idx are written");
  static const std::map<std::string, TextFormat> formats = {{"auto", TextFormat::automatic},
                                                            {"text", TextFormat::text},
                                                            {"jsonl", TextFormat::jsonl},
                                                            {"chat", TextFormat::chat}};
  command
      ->add_option("--format", options->documents.format,
                   "auto (by the ending), text, jsonl, or chat (JSONL of messages, masked)")
      ->transform(CLI::CheckedTransformer(formats, CLI::ignore_case).description("{auto,text,jsonl,chat}"));
  command->add_option("--document-separator", options->documents.separator,
                      "Text between documents (\\n for a new line)");
  command->add_option("--document-start", options->documents.start,
                      "A line that matches this expression begins a document");
  command->add_option("--json-key", options->documents.json_key, "Key of the text in JSONL");
  command->add_option("--tokenizer", options->tokenizer, "A model's folder or its vocabulary; without: bytes");
  command->add_option("--end-of-document", options->end_of_document, "Token that ends documents (the tokenizer's eos)");
  command->add_flag("!--no-append-eod", options->append_eod, "Leave out the end-of-document token");
  command->add_option("--workers", options->workers, "Threads that parse and tokenize; 0: one per core")
      ->check(CLI::NonNegativeNumber);
  auto verify = std::make_shared<bool>(false);
  command->add_flag("--verify", *verify,
                    "Compare the data sets named as inputs (PREFIX_text_document) with their checksums");
  command->callback([options, verify] {
    if (*verify) {
      std::printf("%s", verify_data(options->inputs).c_str());
      return;
    }
    options->documents.separator = unescape(options->documents.separator);
    std::printf("%s\n", prepare(*options).text().c_str());
  });
}

}  // namespace farskip::cli
