// Which products of parts make up a product of numbers, and in which order they are added: for all rows alike.
#pragma once
#include <cstdint>
#include <type_traits>

namespace {

// Which parts are multiplied: of x, and of the weight.
struct Term {
    int x, weight;
};
// Of weights of so many parts, the smallest first; those that together are below 2^-24 of the whole are left out.
template <int PARTS>
constexpr Term TERMS[1] = {};
template <>
constexpr Term TERMS<3>[6] = {{1, 1}, {2, 0}, {0, 2}, {0, 1}, {1, 0}, {0, 0}};
template <>
constexpr Term TERMS<2>[5] = {{1, 1}, {2, 0}, {1, 0}, {0, 1}, {0, 0}};
template <>
constexpr Term TERMS<1>[3] = {{2, 0}, {1, 0}, {0, 0}};
template <int PARTS>
constexpr int COUNT = std::extent_v<decltype(TERMS<PARTS>)>;

// Inputs are added up in segments of about as many tiles, and then the segments.
constexpr int DEPTH = 24;  // at most
inline int64_t segments_of(int64_t tiles) { return (tiles + DEPTH - 1) / DEPTH; }
inline int64_t first_tile(int64_t tiles, int64_t segment) { return tiles * segment / segments_of(tiles); }

}  // namespace
