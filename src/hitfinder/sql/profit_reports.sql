-- profit_reports: every report with what it leaves after all costs, returns counted before they have come: of each
-- report's revenue the share that is expected to be refunded in the end, rather than the refunds of older orders that
-- happened to come in its period. Decimals: their sum is the same in any order.
-- Grain: sku_id, period_start, channel, creative_id, known_at.
-- Reads: reports_in_stock, unit_economics (sku_id, a column for each coefficient), return_shares (sku_id, return_share).
with
valued as (
    select
        reports.*,
        -- Money may come in rows of its own, such as an ad platform's: each row leaves what it counted.
        cast(
            coalesce(
                cast(reports.revenue as double)
                * (unit_economics.per_revenue + unit_economics.per_refund * coalesce(return_shares.return_share, 0)),
                0
            )
            + coalesce(reports.orders * unit_economics.per_order, 0)
            + coalesce(coalesce(reports.units, reports.orders) * unit_economics.per_unit, 0)
            - coalesce(cast(reports.spend as double), -reports.impressions * unit_economics.per_impression, 0)
            as decimal(18, 4)
        ) as profit
    from reports_in_stock as reports
    inner join unit_economics on reports.sku_id = unit_economics.sku_id
    left join return_shares on reports.sku_id = return_shares.sku_id
)

select * from valued
