#pragma once
// A folder that appears complete or not at all.

#include <string>

namespace farskip {

/// Files are written to FOLDER.tmp; commit() gives it the name FOLDER, in place of the folder that had it, and anything
/// else removes it.
class FolderReplacement {
 public:
  /// Throws Error where FOLDER.tmp cannot be made, or `folder` is not a folder.
  explicit FolderReplacement(const std::string& folder);
  ~FolderReplacement();
  FolderReplacement(const FolderReplacement&) = delete;
  FolderReplacement& operator=(const FolderReplacement&) = delete;

  /// Where to write.
  const std::string& temporary() const { return temporary_; }
  /// Throws Error where the old folder holds something that is neither replaced by name nor a file of weights or code
  /// that this program writes, because it would be lost, and where renaming fails. The old folder is then as it was.
  void commit();

 private:
  void check_replaced() const;

  std::string folder_, temporary_;
};

}  // namespace farskip
