#include "infer/page_pool.h"

#include "base/error.h"
#include "base/sha256.h"

namespace farskip {

PageKey page_key(const PageKey& before, std::span<const int32_t> tokens) {
  Sha256 digest;
  digest.update(before.data(), before.size());
  digest.update(tokens.data(), tokens.size_bytes());
  return digest.hex();
}

PagePool::PagePool(int64_t num_pages) : pages_(num_pages) {
  for (int64_t page = num_pages; page > 0; --page) empty_.push_back(static_cast<int32_t>(page - 1));
}

int32_t PagePool::take() {
  FARSKIP_CHECK(num_free() > 0, "a page is taken from a full cache");
  int32_t index = -1;
  if (!empty_.empty()) {
    index = empty_.back();
    empty_.pop_back();
  } else {
    index = kept_.front();
    kept_.pop_front();
    holders_.erase(pages_[index].key);
    pages_[index].key.clear();
  }
  pages_[index].num_users = 1;
  return index;
}

PagePool::Match PagePool::match(std::span<const PageKey> keys) const {
  Match result;
  for (const PageKey& key : keys) {
    const auto found = holders_.find(key);
    if (found == holders_.end()) break;
    ++result.num_pages;
    if (pages_[found->second].num_users == 0) ++result.num_unused;
  }
  return result;
}

std::vector<int32_t> PagePool::share(std::span<const PageKey> keys) {
  std::vector<int32_t> shared;
  for (const PageKey& key : keys) {
    const auto found = holders_.find(key);
    if (found == holders_.end()) break;
    Page& page = pages_[found->second];
    if (page.num_users++ == 0) kept_.erase(page.place);
    shared.push_back(found->second);
  }
  return shared;
}

void PagePool::give_back(std::span<const int32_t> pages) {
  for (size_t i = pages.size(); i > 0; --i) {
    const int32_t index = pages[i - 1];
    Page& page = pages_.at(index);
    FARSKIP_CHECK(page.num_users > 0, "a page that nobody uses is given back");
    if (--page.num_users > 0) continue;
    if (page.key.empty()) {
      empty_.push_back(index);
    } else {
      page.place = kept_.insert(kept_.end(), index);
    }
  }
}

void PagePool::publish(int32_t index, const PageKey& key) {
  Page& page = pages_.at(index);
  FARSKIP_CHECK(page.num_users > 0 && page.key.empty(), "only a page in use begins to hold something");
  if (holders_.emplace(key, index).second) page.key = key;
}

void PagePool::check() const {
  int64_t num_empty = 0, num_kept = 0, num_keys = 0;
  for (size_t i = 0; i < pages_.size(); ++i) {
    const Page& page = pages_[i];
    FARSKIP_CHECK(page.num_users >= 0);
    if (page.num_users == 0) ++(page.key.empty() ? num_empty : num_kept);
    if (page.key.empty()) continue;
    ++num_keys;
    const auto found = holders_.find(page.key);
    FARSKIP_CHECK(found != holders_.end() && found->second == static_cast<int32_t>(i), "a key without its page");
    FARSKIP_CHECK(page.num_users > 0 || *page.place == static_cast<int32_t>(i), "a kept page out of its place");
  }
  FARSKIP_CHECK(num_empty == std::ssize(empty_) && num_kept == std::ssize(kept_), "a page is lost");
  FARSKIP_CHECK(num_keys == std::ssize(holders_), "a key that no page has");
}

}  // namespace farskip
