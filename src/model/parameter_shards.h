#pragma once
// Which elements of which trained parameter this rank's optimizer keeps. Replicated weights are shared out among all
// ranks, a rank's experts among the ranks that hold the same ones (Megatron's distributed optimizer; arXiv 1910.02054,
// stages 1 and 2). Both in buckets, one per layer and kind: gradients of a bucket are reduced to the ranks that keep
// them, values gathered from these.

#include <compare>
#include <map>
#include <vector>

#include "layer/layout.h"
#include "model/parameter_set.h"

namespace farskip {

/// A run of elements of a parameter as this rank holds it, flat.
struct ParameterSlice {
  int id = -1;
  int64_t begin = 0, size = 0;
};

/// The bucket of a node of the graph that reduces gradients or gathers values.
struct BucketId {
  int64_t layer = 0;  ///< -1: embedding; num_layers: final norm and head
  bool experts = false;
  auto operator<=>(const BucketId&) const = default;
};

/// Tied embeddings go with the head.
BucketId bucket_of(const ParameterTable& table, const ParameterInfo& info);
/// Those of a bucket that are not frozen.
std::vector<int> trained_parameters(const ParameterSet& parameters, BucketId bucket);

class ParameterShards {
 public:
  /// `sharded` false: every rank keeps all it holds. Else masters that this rank does not keep are released. `rank`: of
  /// the layout's world.
  ParameterShards(ParameterSet& parameters, const Layout& layout, int rank, bool sharded);

  /// What rank `rank` keeps, in the order of its memory. The same on all ranks.
  static std::vector<ParameterSlice> slices_of(const ParameterSet& parameters, const Layout& layout, int rank,
                                               bool sharded);

  bool sharded() const { return sharded_; }
  const std::vector<ParameterSlice>& slices() const { return slices_; }
  /// fp32 [size]: the master of a slice; the memory of the value where that is fp32.
  const at::Tensor& main(size_t slice) const { return mains_.at(slice); }
  /// fp32 [size]: the gradient of a slice, after its reduction.
  at::Tensor gradient(size_t slice);

  /// Forgets the gradients that were taken.
  void release_gradients() { gradients_.assign(slices_.size(), {}); }

  /// fp32 [ranks * n]: the bucket's gradients in the order in which ranks keep them, for a reduce-scatter to n each.
  at::Tensor pack_gradients(BucketId bucket);
  /// This rank's part [n] of their sum.
  void take_gradients(BucketId bucket, const at::Tensor& part);
  /// bytes [m]: the values that this rank keeps, in their own dtypes, for an all-gather to [ranks * m].
  at::Tensor pack_values(BucketId bucket) const;
  void take_values(BucketId bucket, const at::Tensor& all);

  /// Buckets with weights that are shared out, in the order of the model.
  std::vector<BucketId> buckets() const;

 private:
  /// Trained parameters of one dtype, one behind the other, of which each rank keeps an equal run.
  struct Segment {
    at::ScalarType dtype = at::kFloat;  ///< of the values
    std::vector<int> ids;
    int64_t size = 0;  ///< elements
    int64_t part = 0;  ///< elements of a rank, the last one's are filled up with zeros
  };
  struct Bucket {
    int ranks = 1, rank = 0;
    std::vector<Segment> segments;
    std::vector<size_t> slices;  ///< this rank's, in order
  };
  static std::map<BucketId, Bucket> divide(const ParameterSet& parameters, const Layout& layout, int rank,
                                           bool sharded);
  static std::vector<ParameterSlice> slices_of(const ParameterSet& parameters, const Bucket& bucket,
                                               const Segment& segment);
  static int64_t numel(const ParameterSet& parameters, int id);

  ParameterSet& parameters_;
  bool sharded_;
  std::map<BucketId, Bucket> buckets_;
  std::vector<ParameterSlice> slices_;
  std::vector<at::Tensor> mains_, gradients_;  ///< per slice; gradients only of what is shared out
};

}  // namespace farskip
