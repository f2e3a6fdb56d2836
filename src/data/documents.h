#pragma once
// Cutting text into documents, as it streams in, and reading the JSON that holds them.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace farskip {

enum class TextFormat { automatic, text, jsonl, chat };

struct ChatFormat;

struct DocumentRules {
  TextFormat format = TextFormat::automatic;  ///< automatic: jsonl for *.jsonl and *.ndjson, else text
  std::string separator;                      ///< text: stands between documents and is dropped; empty: none
  std::string start;  ///< text: regular expression (ECMAScript); a line with a match begins a document; empty: none
  std::string json_key = "text";           ///< jsonl: holds the document
  std::shared_ptr<const ChatFormat> chat;  ///< chat: how messages are written; null: see chat_document
};

struct Document {
  std::string text;
  std::string targets;  ///< [bytes of text] 1 where a byte is a target, else 0; empty: all are
};

/// Cuts one input into records: a document of text, or a line of JSON that holds one. Must keep up with the disk, so
/// it looks no closer. Without separator and start a text is one document, whatever its length.
class RecordCutter {
 public:
  /// `line` counts from 1; the record ends there.
  using Emit = std::function<void(std::string_view record, int64_t line)>;
  virtual ~RecordCutter() = default;
  /// The next line with its end ("\n"; the last line of an input may lack it).
  virtual void add_line(std::string_view line) = 0;
  /// The input has ended.
  virtual void finish() = 0;
};

/// What `rules` make of an input's name.
TextFormat format_of(const DocumentRules& rules, const std::string& source);

/// `emit` gets every record of `source`, empty documents too, but no blank line of JSON. Throws Error for a regular
/// expression that is none.
std::unique_ptr<RecordCutter> make_cutter(const DocumentRules& rules, const std::string& source,
                                          RecordCutter::Emit emit);

/// The document of a record. Throws Error "SOURCE:LINE: REASON" for JSON that is damaged or lacks what it should hold.
/// Thread-safe.
Document parse_record(const DocumentRules& rules, const std::string& source, std::string_view record, int64_t line);

/// Replaces the escapes \n, \t, \r, \0 and \\ that a shell makes hard to type.
std::string unescape(const std::string& text);

}  // namespace farskip
