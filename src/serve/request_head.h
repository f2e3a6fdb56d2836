#pragma once
// The head of an HTTP request, checked before the HTTP library sees it: where its body ends must be certain.

#include <cstdint>
#include <string>
#include <string_view>

namespace farskip::serve {

struct RequestHead {
  /// Request line and headers with the blank line, for the library: without what it must not act on (Range,
  /// Accept-Encoding).
  std::string text;
  std::string authorization;   ///< as it was sent
  int64_t content_length = 0;  ///< of a body that is not chunked
  bool chunked = false;
  bool is_http_1_0 = false;
};

/// `raw` ends with the blank line. Throws ApiError: 400 for what is no header or says two lengths, 413 for a body of
/// more than `max_body` bytes, 415 for one that is not plain JSON by its Content-Type or is compressed, 501 for another
/// transfer encoding.
RequestHead parse_request_head(std::string_view raw, int64_t max_body);

}  // namespace farskip::serve
