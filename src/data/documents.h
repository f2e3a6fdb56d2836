#pragma once
// Cutting text into documents, as it streams in.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace farskip {

enum class TextFormat { automatic, text, jsonl };

struct DocumentRules {
  TextFormat format = TextFormat::automatic;  ///< automatic: jsonl for *.jsonl and *.ndjson, else text
  std::string separator;                      ///< text: stands between documents and is dropped; empty: none
  std::string start;  ///< text: regular expression (ECMAScript); a line with a match begins a document; empty: none
  std::string json_key = "text";  ///< jsonl: holds the document
};

/// Cuts one input. Without separator and start a text is one document, whatever its length.
class DocumentSplitter {
 public:
  using Emit = std::function<void(std::string_view)>;
  virtual ~DocumentSplitter() = default;
  /// The next line with its end ("\n"; the last line of an input may lack it).
  virtual void add_line(std::string_view line) = 0;
  /// The input has ended.
  virtual void finish() = 0;
};

/// `source` names the input in errors; `emit` gets every document, empty ones too. Throws Error for a regular
/// expression that is none; a JSON line that is damaged or lacks the key is an Error with its number.
std::unique_ptr<DocumentSplitter> make_splitter(const DocumentRules& rules, const std::string& source,
                                                DocumentSplitter::Emit emit);

/// Replaces the escapes \n, \t, \r, \0 and \\ that a shell makes hard to type.
std::string unescape(const std::string& text);

}  // namespace farskip
