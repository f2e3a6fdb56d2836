#pragma once
// The pages of a cache: which are free, which are used and by how many sequences, and which hold what a new sequence
// begins with. Numbers alone, no tensors.

#include <cstdint>
#include <list>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

namespace farskip {

/// Names what a full page holds: the digest of its tokens and of all tokens before them (SHA-256, so that no prompt can
/// be made to meet another's pages).
using PageKey = std::string;

/// The key of the page of `tokens` behind the page `before` (empty: the first page).
PageKey page_key(const PageKey& before, std::span<const int32_t> tokens);

class PagePool {
 public:
  explicit PagePool(int64_t num_pages);

  int64_t num_pages() const { return static_cast<int64_t>(pages_.size()); }
  /// Pages that no sequence uses, those included that are kept for what they hold.
  int64_t num_free() const { return static_cast<int64_t>(empty_.size() + kept_.size()); }
  int64_t num_used() const { return num_pages() - num_free(); }

  /// A page with nothing in it, for one sequence; the content that nobody used for longest is forgotten for it.
  /// REQUIRES: num_free() > 0.
  int32_t take();
  /// How many of the first of `keys` pages hold, and how many of these no sequence uses.
  struct Match {
    int64_t num_pages = 0, num_unused = 0;
  };
  Match match(std::span<const PageKey> keys) const;
  /// Those pages, each for one more sequence.
  std::vector<int32_t> share(std::span<const PageKey> keys);
  /// One sequence fewer uses each page. Of those that nobody uses, the last of the list are forgotten first.
  void give_back(std::span<const int32_t> pages);
  /// The page holds this from now on and is not written to any more; nothing happens where another page holds it too.
  void publish(int32_t page, const PageKey& key);

  int64_t num_users(int32_t page) const { return pages_.at(page).num_users; }
  /// Stops the program where the books do not agree with themselves.
  void check() const;

 private:
  struct Page {
    int64_t num_users = 0;
    PageKey key;                         ///< empty: nothing that others could use
    std::list<int32_t>::iterator place;  ///< in kept_, where nobody uses it and it has a key
  };

  std::vector<Page> pages_;
  std::vector<int32_t> empty_;  ///< unused pages without a key
  std::list<int32_t> kept_;     ///< unused pages with a key, the longest unused first
  std::unordered_map<PageKey, int32_t> holders_;
};

}  // namespace farskip
