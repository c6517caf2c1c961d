use rule test as test_permutation with:
    wildcard_constraints:
        method=variants("permutation"),
    params:
        code=method_code("permutation"),
