#include "serve/request_head.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <optional>

#include "serve/api_error.h"

namespace farskip::serve {
namespace {

std::string lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(), [](unsigned char c) { return std::tolower(c); });
  return result;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

bool is_token(std::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || std::string_view("!#$%&'*+-.^_`|~").find(static_cast<char>(c)) != std::string::npos;
  });
}

int64_t parse_length(std::string_view value) {
  uint64_t length = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), length);
  if (value.empty() || error != std::errc() || end != value.data() + value.size() || length > uint64_t{1} << 62) {
    throw ApiError(400, "Content-Length is no number of bytes");
  }
  return static_cast<int64_t>(length);
}

void check_content_type(std::string_view value) {
  const std::string type = lower(trimmed(value.substr(0, value.find(';'))));
  if (type.empty() || type == "application/json") return;
  throw ApiError(415, fmt::format("Content-Type is {}; send application/json", type.substr(0, 100)));
}

}  // namespace

RequestHead parse_request_head(std::string_view raw, int64_t max_body) {
  RequestHead head;
  std::optional<int64_t> length;
  std::string content_type;
  bool first = true;
  while (!raw.empty()) {
    const size_t end = raw.find("\r\n");
    if (end == std::string_view::npos) throw ApiError(400, "a line of the request does not end with CR LF");
    const std::string_view line = raw.substr(0, end);
    raw.remove_prefix(end + 2);
    if (line.find_first_of(std::string_view("\r\n\0", 3)) != std::string_view::npos) {
      throw ApiError(400, "a line of the request has a control character");
    }
    bool passed_on = true;
    if (first) {
      head.is_http_1_0 = line.ends_with("HTTP/1.0");
    } else if (!line.empty()) {
      const size_t colon = line.find(':');
      if (colon == std::string_view::npos || !is_token(line.substr(0, colon))) {
        throw ApiError(400, "a header of the request is malformed");
      }
      const std::string name = lower(line.substr(0, colon));
      const std::string_view value = trimmed(line.substr(colon + 1));
      if (name == "content-length") {
        const int64_t found = parse_length(value);
        if (length && *length != found) throw ApiError(400, "the request has two values of Content-Length");
        length = found;
      } else if (name == "transfer-encoding") {
        if (lower(value) != "chunked" || head.chunked) throw ApiError(501, "Transfer-Encoding must be chunked");
        head.chunked = true;
      } else if (name == "content-encoding" && lower(value) != "identity") {
        throw ApiError(415, "the body is compressed; send it as it is");
      } else if (name == "content-type") {
        content_type = value;
      } else if (name == "authorization") {
        head.authorization = value;
      }
      passed_on = name != "range" && name != "accept-encoding";
    }
    if (passed_on) head.text.append(line).append("\r\n");
    first = false;
  }
  if (length && head.chunked) throw ApiError(400, "the request has both Content-Length and Transfer-Encoding");
  head.content_length = length.value_or(0);
  if (head.content_length > max_body) {
    throw ApiError(413, fmt::format("the body has {} bytes; at most {} are read", head.content_length, max_body));
  }
  if (head.content_length > 0 || head.chunked) check_content_type(content_type);
  return head;
}

}  // namespace farskip::serve
