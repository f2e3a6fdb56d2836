#include "tests/layer/symbols.h"

#include <gtest/gtest.h>

#include <sstream>

namespace farskip::testing {

Views evaluate(const StageGraph& graph) {
  std::map<ValueId, std::string> symbols;
  Views views;
  for (const Node& node : graph.nodes()) {
    if (node.pass != Pass::forward || node.microbatch != 0) continue;
    const std::string k = std::to_string(node.layer);
    auto writes = [&](const std::string& symbol) { symbols[node.writes.front()] = symbol; };
    for (const Sum& sum : node.sums) {
      symbols[sum.out] = "(" + symbols.at(sum.left) + " + " + symbols.at(sum.right) + ")";
    }
    switch (node.stage) {
      case Stage::embed:
        writes("x");
        break;
      case Stage::qkv:
        views.attention[node.layer] = symbols.at(node.reads.front());
        break;
      case Stage::view_ff:
        views.feed_forward[node.layer] = symbols.at(node.view);
        break;
      case Stage::head:
        views.head = symbols.at(node.reads.front());
        break;
      case Stage::attn_out:
        writes("a" + k);
        break;
      case Stage::unpermute:  // with gather, a partial sum that reduce_scatter passes on
      case Stage::reduce_scatter:
        writes("r" + k);
        break;
      case Stage::shared:
        writes("s" + k);
        break;
      case Stage::dense:
        writes("d" + k);
        break;
      case Stage::reduce_attn:
      case Stage::reduce_shared:
      case Stage::reduce_routed:
      case Stage::reduce_dense: {
        std::string sum;
        for (ValueId v : node.reads) sum += (sum.empty() ? "" : " + ") + symbols.at(v);
        writes("AR(" + sum + ")");
        break;
      }
      default:
        break;
    }
  }
  return views;
}

std::multiset<std::string> symbols_of(const std::string& expression) {
  std::string words = expression;
  for (size_t at; (at = words.find("AR")) != std::string::npos;) words.replace(at, 2, "  ");
  for (char& c : words) {
    if (c == '(' || c == ')' || c == '+') c = ' ';
  }
  std::multiset<std::string> symbols;
  std::istringstream in(words);
  for (std::string word; in >> word;) symbols.insert(word);
  return symbols;
}

}  // namespace farskip::testing
